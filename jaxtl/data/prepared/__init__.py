"""Datasets prepared by TFDS, or by builders of ours: found and read without TensorFlow."""
