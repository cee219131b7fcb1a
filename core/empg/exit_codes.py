"""Exit codes of every program, after BSD's sysexits. Any other code is a crash that may be tried again."""

OK = 0
"""The work is done; for the learner: the run's final manifest exists."""
SPEC = 64
"""The manifest or the command line is wrong; trying again is pointless."""
DIVERGED = 65
"""Training left a guard's bounds or met a non-finite number; trying again is pointless."""
RETRY = 75
"""Asked to stop, fenced, out of time or left alone by the hub; the next attempt goes on from here."""
WAITING = 76
"""The learner has planned an E-step and leaves its GPUs to the samplers; start it again when the units are there."""
