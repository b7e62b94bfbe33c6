"""How good a mask is, how sure we may be of that, and against what it should be compared."""
