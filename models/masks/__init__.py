"""Masks as arrays: outlines, objects as rows, and what can be measured on them."""
