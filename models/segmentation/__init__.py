"""Every model that turns a prompt into a mask: one file or folder each."""
