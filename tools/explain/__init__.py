"""explain: evidence for a stored result, one module per kind."""
