"""evaluate: models scored on annotated images."""
