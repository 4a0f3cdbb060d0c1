"""Inside a forward: the calls that a module's own code makes, listed by name, seen and changed while they are made."""
