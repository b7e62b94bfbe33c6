"""Questions around an evaluation: other wordings, boxes instead of words, two models, several data sets."""
