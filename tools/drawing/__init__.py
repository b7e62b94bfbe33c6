"""Pictures that can be read without the text."""
