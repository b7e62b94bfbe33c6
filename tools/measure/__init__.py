"""measure: numbers with units from a stored result, each with the rule that computed it."""
