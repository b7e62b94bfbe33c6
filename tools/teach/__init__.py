"""Teaching from files: annotations drawn elsewhere become examples, examples a file that others can use."""
