"""The experiment as data, and the Python it stands for."""
