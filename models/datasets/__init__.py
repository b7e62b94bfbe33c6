"""Annotated images as training and evaluation examples."""
