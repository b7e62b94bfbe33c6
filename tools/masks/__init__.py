"""One mask layer over pictures in memory and slides on disk."""
