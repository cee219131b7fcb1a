"""The run directory: the data plane in which samplers and learner meet."""
