"""Server: models that others may look into: an API process, and workers that it can kill."""
