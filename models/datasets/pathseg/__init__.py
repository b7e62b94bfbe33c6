"""The 17 PathSeg sources, read from files a user has, and brought to one scale and size (pathsegmentor.md, section 3)."""
