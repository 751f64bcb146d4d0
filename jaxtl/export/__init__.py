"""Leaving with the model: a run's predictions in Python, its weights and programs in files.

Importing this imports no JAX.
"""
