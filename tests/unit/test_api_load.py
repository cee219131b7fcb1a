"""Manifests to models: every error names line, field and remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from empg.api.load import InvalidManifest, load_run, parse_run
from empg.api.run import EMPGRun, RunSpec, immutable_part, spec_digest
from empg.cli.main import main
from empg.exit_codes import OK, SPEC

MANIFEST = """\
apiVersion: empg.dev/v1alpha1
kind: EMPGRun
metadata:
  name: demo
spec:
  model:
    name: ./base
  task:
    name: arithmetic
  em:
    iterations: 3
  optimizer:
    learningRate: 1e-4
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(InvalidManifest) as caught:
        load_run(write(tmp_path, text))
    return [str(problem) for problem in caught.value.problems]


def test_defaults_are_filled_in_and_exponents_are_numbers(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, MANIFEST))
    assert run.spec.em.samples_per_prompt == 8
    assert run.spec.optimizer.learning_rate == 1e-4
    assert run.spec.objective.preset == "empg"


def test_a_manifest_survives_the_round_trip_through_json(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, MANIFEST))
    path = tmp_path / "manifest.json"
    path.write_text(yaml.safe_dump(run.manifest()))
    assert load_run(path) == run


@pytest.mark.parametrize(
    ("edit", "line", "said"),
    [
        (("iterations: 3", "iterations: 0"), 11, "spec.em.iterations: Input should be greater than or equal to 1"),
        (("iterations: 3", "iteration: 3"), 11, "spec.em.iteration: unknown key"),
        (("iterations: 3", "iterations: '3'"), 11, "spec.em.iterations: Input should be a valid integer (given: '3')"),
        (("iterations: 3", "seed: 1"), 10, "spec.em.iterations: required, but absent"),
        (("name: arithmetic", "name: poetry"), 9, "spec.task.name: Input should be 'arithmetic', 'gsm8k'"),
        (("name: ./base", "revision: main"), 6, "spec.model: set exactly one of model.name and model.fromRun"),
        (("name: demo", "name: Demo_1"), 4, "metadata.name: String should match"),
        (("v1alpha1", "v1"), 1, "apiVersion: Input should be 'empg.dev/v1alpha1'"),
        (("name: arithmetic", "name: arithmetic\n    levels: [7]"), 8, "task.levels must be within 1–4"),
        (("1e-4", "0.1\n  em: {}"), 14, "key 'em' is given twice"),
        (("iterations: 3", "iterations: 3\n    promptsPerIteration: 30"), 10, "em.promptsPerUnit (8) must divide"),
    ],
)
def test_each_error_names_line_field_and_remedy(tmp_path: Path, edit: tuple[str, str], line: int, said: str) -> None:
    found = problems(tmp_path, MANIFEST.replace(*edit))
    assert any(text.startswith(f"line {line}: ") and said in text for text in found), found


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, MANIFEST.replace("iterations: 3", "iterations: 0").replace("1e-4", "-1"))
    assert len(found) == 2


def test_other_documents_are_passed_over(tmp_path: Path) -> None:
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\n"
    assert load_run(write(tmp_path, other + MANIFEST)).metadata.name == "demo"
    assert "no document of kind EMPGRun" in problems(tmp_path, "kind: ConfigMap\n")[0]
    assert "2 documents of kind EMPGRun" in problems(tmp_path, MANIFEST + "---\n" + MANIFEST)[0]


def test_broken_yaml_and_json_name_the_line(tmp_path: Path) -> None:
    assert problems(tmp_path, "kind: EMPGRun\nspec: [1, 2\n")[0].startswith("line 3")
    with pytest.raises(InvalidManifest, match=r"manifest\.json:line 1: not valid JSON"):
        parse_run(b"{", "manifest.json")


@pytest.mark.parametrize("text", [MANIFEST + "---\n", "# empty\n---\n# too\n---\n" + MANIFEST, "---\n---\n" + MANIFEST])
def test_empty_documents_are_passed_over(tmp_path: Path, text: str) -> None:
    assert load_run(write(tmp_path, text)).metadata.name == "demo"


def test_a_template_without_quotes_is_told_with_its_line(tmp_path: Path) -> None:
    text = MANIFEST.replace("name: arithmetic", "name: arithmetic\n    template: {{ prompt }}")
    assert problems(tmp_path, text) == [
        "line 10: a mapping or list can't be a key; put a text that YAML takes for one, as of { or [, in quotes"
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x: 2024-02-30", "line 1: not valid YAML: day"),
        ("x: !!int abc", "line 1: not valid YAML: invalid literal"),
        ("x: !!timestamp a", "line 1: not valid YAML: "),
        ("2024-01-01: x", "line 14: date can't be a key"),
        ("x: " + "[" * 2000, "line 1: not valid YAML: maximum recursion depth"),
    ],
)
def test_values_that_yaml_chokes_on_are_a_fault_of_the_manifest(tmp_path: Path, line: str, said: str) -> None:
    (problem,) = problems(tmp_path, f"{MANIFEST}{line}\n")
    assert problem.startswith(said)


def test_a_merged_key_may_be_given_again_but_no_other(tmp_path: Path) -> None:
    pods = "  sampler:\n    podTemplate: &pod {metadata: {labels: {team: a}}, spec: {priority: 1}}\n"
    text = MANIFEST + pods + "  learner:\n    podTemplate: {<<: *pod, spec: {priority: 2}}\n"
    spec = load_run(write(tmp_path, text)).spec
    assert spec.learner.pod_template == {"metadata": {"labels": {"team": "a"}}, "spec": {"priority": 2}}
    assert spec.sampler.pod_template == {"metadata": {"labels": {"team": "a"}}, "spec": {"priority": 1}}
    twice = text.replace("spec: {priority: 2}", "spec: {priority: 2}, spec: {priority: 3}")
    assert problems(tmp_path, twice) == ["line 17: key 'spec' is given twice"]


def sections(**changes: Any) -> dict[str, Any]:
    document = yaml.safe_load(MANIFEST)["spec"]
    document["optimizer"]["learningRate"] = 1e-4
    for name, value in changes.items():
        document[name] = {**document.get(name, {}), **value}
    return document


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": {"topP": 0.9}, "objective": {"preset": "grpo"}}, "sampler.topP"),
        ({"sampler": {"maxModelLength": 100}}, "sampler.maxModelLength"),
        ({"em": {"samplesPerPrompt": 1}, "objective": {"preset": "rloo"}}, "em.samplesPerPrompt must be 2 or more"),
        ({"learner": {"offload": "optimizer-and-parameters"}}, "learner.zeroStage: 3"),
        ({"task": {"name": "dataset", "source": "x.jsonl"}}, "task.grader.name is required"),
        ({"task": {"grader": {"name": "function"}}}, "task.grader.function"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RunSpec.model_validate(sections(**changes))


def test_every_field_declares_what_an_edit_does() -> None:
    def undeclared(model: Any, path: str) -> list[str]:
        missing = []
        for name, info in model.model_fields.items():
            nested = info.annotation if isinstance(info.annotation, type) else None
            extra = info.json_schema_extra or {}
            if nested is not None and hasattr(nested, "model_fields"):
                missing += undeclared(nested, f"{path}.{name}")
            elif extra.get("x-empg-change") not in ("immutable", "live", "next-attempt", "rolls-samplers"):
                missing.append(f"{path}.{name}")
        return missing

    assert undeclared(RunSpec, "spec") == []


def test_the_digest_follows_immutable_fields_only() -> None:
    start = RunSpec.model_validate(sections())
    assert spec_digest(start) == spec_digest(RunSpec.model_validate(sections(em={"iterations": 9})))
    assert spec_digest(start) != spec_digest(RunSpec.model_validate(sections(em={"seed": 9})))
    assert immutable_part(start)["em"] == {"seed": 0}


def test_validate_prints_errors_and_exits_64(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = write(tmp_path, MANIFEST), tmp_path / "bad.yaml"
    bad.write_text(MANIFEST.replace("iterations: 3", "iterations: 0"))
    assert main(["validate", str(good)]) == OK
    assert main(["validate", str(good), str(bad), str(tmp_path / "absent.yaml")]) == SPEC
    captured = capsys.readouterr()
    assert captured.out.count(f"{good}: valid") == 2
    assert f"{bad}:line 11: spec.em.iterations" in captured.err
    assert "absent.yaml: can't be read" in captured.err


def test_the_whole_object_is_frozen(tmp_path: Path) -> None:
    run: EMPGRun = load_run(write(tmp_path, MANIFEST))
    with pytest.raises(ValueError, match="frozen"):
        run.spec.em.iterations = 5  # type: ignore[misc]
