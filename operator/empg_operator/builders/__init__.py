"""Children of a run as the operator wants them: pure functions from run and settings to objects to apply."""
