"""Where everything lies in the run directory: builders and parsers of keys."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["rollout", "eval"]

RUN = "run.json"
MANIFEST = "manifest.json"
FINAL = "final.json"
PROGRESS = "progress/learner.json"
POLICIES = "policy"
STATES = "learner/state"
OWNERS = "learner"
SAMPLERS = "samplers"
SPECS = "spec"
METRICS = "metrics"
TENSORBOARD = "tensorboard"
TENSORBOARD_EVAL = "tensorboard/eval"
DATA = "data"
PROBES = "probe"

_NUMBER = re.compile(r"[0-9]{6,}")
_ATTEMPT = re.compile(r"(?P<unit>[0-9]{2}-[0-9]{4,})\.(?P<attempt>0|[1-9][0-9]*)")
_OWNER = re.compile(r"owner\.(?P<number>[1-9][0-9]*)")
_SAMPLER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def number(value: int) -> str:
    """An iteration or version as six digits or more."""
    return f"{value:06d}"


def parse_number(name: str) -> int | None:
    """The number that `number` wrote; None if the name (without its suffix) is none."""
    stem = name.split(".", 1)[0]
    return int(stem) if _NUMBER.fullmatch(stem) and number(int(stem)) == stem else None


def iteration_dir(kind: Kind, iteration: int) -> str:
    return f"{kind}/{number(iteration)}"


def plan_key(kind: Kind, iteration: int, round: int) -> str:
    return f"{iteration_dir(kind, iteration)}/plan/{round:02d}.json"


def claim_key(kind: Kind, iteration: int, unit: str, attempt: int) -> str:
    return f"{iteration_dir(kind, iteration)}/claims/{unit}.{attempt}"


def unit_key(kind: Kind, iteration: int, unit: str, attempt: int) -> str:
    return f"{iteration_dir(kind, iteration)}/units/{unit}.{attempt}.parquet"


def reject_key(kind: Kind, iteration: int, unit: str, attempt: int) -> str:
    return f"{iteration_dir(kind, iteration)}/rejects/{unit}.{attempt}"


def seal_key(kind: Kind, iteration: int) -> str:
    return f"{iteration_dir(kind, iteration)}/seal.json"


def spec_key(iteration: int) -> str:
    return f"{SPECS}/{number(iteration)}.json"


def policy_prefix(version: int) -> str:
    return f"{POLICIES}/{number(version)}"


def state_prefix(iteration: int) -> str:
    return f"{STATES}/{number(iteration)}"


def group_manifest(prefix: str) -> str:
    return f"{prefix}/MANIFEST.json"


def owner_key(number: int) -> str:
    return f"{OWNERS}/owner.{number}"


def sampler_key(sampler: str) -> str:
    """ValueError if `sampler` is not a valid id."""
    if not _SAMPLER_ID.fullmatch(sampler):
        raise ValueError(f"sampler id {sampler!r}: use up to 128 letters, digits and ._- that start with no sign")
    return f"{SAMPLERS}/{sampler}.json"


def metrics_key(iteration: int) -> str:
    return f"{METRICS}/{number(iteration)}.jsonl"


def event_file(step: int) -> str:
    """Name of an event file; TensorBoard knows one by its beginning."""
    return f"events.out.tfevents.{step:010d}"


def parse_attempt(name: str) -> tuple[str, int] | None:
    """(unit, attempt) of a name in `claims/`, `units/` or `rejects/`; None if it is none."""
    match = _ATTEMPT.fullmatch(name.removesuffix(".parquet"))
    return (match["unit"], int(match["attempt"])) if match else None


def parse_owner(name: str) -> int | None:
    """Number of a name in `learner/`; None if it is no owner."""
    match = _OWNER.fullmatch(name)
    return int(match["number"]) if match else None
