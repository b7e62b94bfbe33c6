"""Files: roots that images are read from, the workspace, result folders, cached features, addresses."""
