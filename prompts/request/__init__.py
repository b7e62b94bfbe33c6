"""How a request is read: what is wanted, what is not, where, and what to measure."""
