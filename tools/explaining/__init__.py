"""The kinds of evidence ``explain`` gives, one module each; ``tools/explain.py`` chooses among them."""
