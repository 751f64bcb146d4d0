"""Datasets in the form of Hugging Face."""
