"""The `empg` command."""
