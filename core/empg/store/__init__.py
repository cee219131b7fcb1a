"""Storage of the run directory: a key space with atomic create and replace."""
