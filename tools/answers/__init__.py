"""What the tools give back: closed shapes, with names and units of the product's contract."""
