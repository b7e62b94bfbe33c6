"""Other people's segmentation models, loaded as they are published: for comparison, and for boxes and points."""
