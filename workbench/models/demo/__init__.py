"""Two small language models that ship with the package, and the script that trained them."""
