"""Many slides, one request."""
