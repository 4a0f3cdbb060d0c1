"""A saved value made ready to look at: a small JSON header and the bytes to draw."""
