"""Training recipes of the systems beside PathSegmentor."""
