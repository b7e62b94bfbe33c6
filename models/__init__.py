"""Pixels: reading images, and every model that turns a prompt into a mask."""
