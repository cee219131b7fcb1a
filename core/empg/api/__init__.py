"""Pydantic models of the `EMPGRun` API: the one place where configuration keys are declared."""
