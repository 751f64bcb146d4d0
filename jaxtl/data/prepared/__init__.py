"""Datasets that TFDS prepared: found, checked and read without TensorFlow."""
