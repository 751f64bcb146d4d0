"""Builders of our own, in TFDS form, from the files that were published: one dataset, one file.

A builder is a `FromOriginals` (see `building`); `tfds_folders.OWN` names its module.
"""
