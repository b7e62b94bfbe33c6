"""PathSegmentor: words and an H&E tile in, a mask out. Import the submodule you need; this one imports nothing."""
