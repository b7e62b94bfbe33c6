"""Explainable diagnosis: slide classifiers on frozen patch features, and what they looked at (PathSegmentor, section 2.6)."""
