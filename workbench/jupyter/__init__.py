"""The one door between a notebook's kernel and the panel."""
