"""Words: the taxonomy, and how a text becomes targets."""
