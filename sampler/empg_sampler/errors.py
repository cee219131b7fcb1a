"""Errors that trying again does not mend."""


class InvalidSpec(ValueError):
    """The run's spec or the command line can't be used; the message names the field and the remedy."""
