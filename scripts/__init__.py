"""What stands behind the Makefile; everything here but the lab and the checks runs before the environment exists."""
