"""segment: an image and words in, masks with evidence, confidence and provenance out."""
