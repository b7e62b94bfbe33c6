"""Training as recipes: data files in, weights out. Importing this package trains nothing."""
