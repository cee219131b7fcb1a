"""A run on this machine: what the operator does on a cluster, done by one process for local children."""
