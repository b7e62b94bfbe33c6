"""Whole slides: worked on block by block, kept as label pyramids and object tables, read and measured in pieces."""
