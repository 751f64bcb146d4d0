"""Adapters in the files of other libraries."""
