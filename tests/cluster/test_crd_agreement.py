"""The API server and the models accept and refuse the same runs, and make the same spec of those they accept."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from run_documents import Runs
from spec_strategies import near_specs

from empg.api.load import InvalidManifest, parse_run
from hack.controlplane.access import Access
from hack.rest import ApiError, Document, Rest

EXAMPLES = 1000
LEAST = 250
"""Of the examples, accepted and refused ones each: with fewer the test would say little."""


def as_kubectl_writes(value: Any) -> Any:
    """Go has one number in JSON: 10.0 is written as 10."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, dict):
        return {key: as_kubectl_writes(item) for key, item in value.items()}
    return [as_kubectl_writes(item) for item in value] if isinstance(value, list) else value


def stated(stored: Document, parsed: Document) -> Document:
    """What is stored, without nulls that mean absence, as the models have them."""
    return {
        key: stated(value, parsed[key]) if isinstance(value, dict) and isinstance(parsed.get(key), dict) else value
        for key, value in stored.items()
        if value is not None or key in parsed
    }


def test_the_api_server_and_the_models_agree(empgruns: Access) -> None:
    runs = Runs(Rest(empgruns.kubeconfig, "test-crd-agreement"), "default")
    answers: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(near_specs())
    def agree(document: Document) -> None:
        theirs, stored = api_server(runs, document)
        ours, parsed = models(document)
        answers["accepted" if stored else "refused"] += 1
        shown = f"\n{json.dumps(document['spec'], indent=1)}\nAPI server: {theirs}\nmodels: {ours}"
        assert (stored is None) == (parsed is None), f"they disagree about{shown}"
        if stored is not None and parsed is not None:
            assert stated(stored, parsed) == parsed, f"they make different specs of{shown}"

    agree()
    assert min(answers["accepted"], answers["refused"]) >= LEAST, answers


def api_server(runs: Runs, document: Document) -> tuple[str, Document | None]:
    """Its answer in words, and the spec as it would store it."""
    try:
        return "accepted", runs.try_create(as_kubectl_writes(document))["spec"]
    except ApiError as error:
        if error.code not in (400, 422):
            raise
        return json.loads(str(error).partition(": ")[2])["message"], None


def models(document: Document) -> tuple[str, Document | None]:
    """The same of the models."""
    try:
        return "accepted", parse_run(json.dumps(document).encode(), "run.json").manifest()["spec"]
    except InvalidManifest as error:
        return str(error), None
