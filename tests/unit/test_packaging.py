"""Generated files of chart and manifests are what their sources say."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from empg import __version__
from empg.api.load import load_run
from hack.packaging.__main__ import ROOT, pure_files
from hack.packaging.crd_template import crd_template
from hack.packaging.values import leaves, read_values, schema, table

VALUES = """\
# Replicas of the thing.
# @schema {"minimum": 1}
replicas: 2
# A section.
image:
  # Name, with a | in it.
  name: x
# Free in its keys.
# @schema {"additionalProperties": {"type": "string"}}
labels:
  a: b
"""
EXAMPLES = sorted((ROOT / "manifests/examples").glob("*.yaml"))


@pytest.mark.parametrize("path", sorted(pure_files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_generated_file_is_committed_as_generated(path: Path) -> None:
    assert path.read_text() == pure_files()[path], "run `make generate`"


def test_values_become_a_schema_that_refuses_what_it_does_not_know() -> None:
    made = schema(read_values(VALUES))
    assert made["additionalProperties"] is False
    assert made["properties"]["replicas"] == {
        "description": "Replicas of the thing.",
        "type": "integer",
        "minimum": 1,
        "default": 2,
    }
    assert made["properties"]["image"]["additionalProperties"] is False
    assert made["properties"]["image"]["properties"]["name"]["type"] == "string"
    assert made["properties"]["labels"]["additionalProperties"] == {"type": "string"}
    assert "properties" not in made["properties"]["labels"]


def test_values_become_a_table() -> None:
    rows = table(read_values(VALUES)).splitlines()[2:]
    assert rows == [
        "| `replicas` | `2` | Replicas of the thing. |",
        '| `image.name` | `"x"` | Name, with a \\| in it. |',
        '| `labels` | `{"a": "b"}` | Free in its keys. |',
    ]


def test_a_value_without_description_is_named() -> None:
    with pytest.raises(ValueError, match=r"image\.name has no comment"):
        read_values(VALUES.replace("  # Name, with a | in it.\n", ""))


def test_an_annotation_that_is_no_json_is_named() -> None:
    with pytest.raises(ValueError, match="annotation of replicas is not valid JSON"):
        read_values(VALUES.replace('{"minimum": 1}', "{minimum: 1}"))


def test_the_template_of_the_definition_keeps_braces_from_helm() -> None:
    definition = "kind: X\nmetadata:\n  name: n\nspec:\n  text: '{{ prompt }}'\n"
    made = crd_template(definition)
    assert "text: '{{ \"{{\" }} prompt }}'" in made
    assert made.startswith("{{- if .Values.crds.enabled }}\nkind: X\nmetadata:\n  labels:\n")
    assert made.endswith("{{- end }}\n")


def test_a_definition_with_annotations_is_refused() -> None:
    with pytest.raises(ValueError, match="annotations of its own"):
        crd_template("metadata:\n  annotations:\n    a: b\nspec:\n  c: d\n")


def test_what_is_no_definition_is_refused() -> None:
    with pytest.raises(ValueError, match="generate it with `empg crd`"):
        crd_template("{}\n")


def test_versions_agree() -> None:
    chart = yaml.safe_load((ROOT / "charts/empg/Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    kustomization = yaml.safe_load((ROOT / "manifests/kustomization.yaml").read_text())
    assert {chart["version"], chart["appVersion"], __version__} == {project}
    assert [image["newTag"] for image in kustomization["images"]] == [project]
    [reader] = yaml.safe_load((ROOT / "manifests/reader.yaml").read_text())["spec"]["containers"]
    assert reader["image"] == f"empg/trainer:{project}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_says_what_it_needs(path: Path) -> None:
    run = load_run(path)
    assert path.read_text().startswith("# ")
    assert run.metadata.namespace is None, "an example goes where its user says"
    assert "@sha256" in (run.spec.sampler.image or "@sha256") or __version__ in str(run.spec.sampler.image)


def test_the_examples_cover_what_users_ask_for() -> None:
    specs = {path.stem: load_run(path).spec for path in EXAMPLES}
    assert any(spec.learner.nodes > 1 for spec in specs.values())
    assert any(spec.sampler.roll_strategy == "Alternate" for spec in specs.values())
    assert any(spec.sampler.accelerator == spec.learner.accelerator == "" for spec in specs.values())
    assert (ROOT / "docker/trainer.Dockerfile").read_text().count(" /opt/empg/" + "examples/demo/base-model") == 1
    assert specs["demo-cpu"].model.name == "/opt/empg/examples/demo/base-model"


def test_the_documented_demos_of_kind_and_of_a_cloud_are_the_example_with_one_change() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text()
    commands = re.findall(r"^ *(sed .*) \| kubectl apply -f -$", text, re.MULTILINE)
    made = [
        subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
        for command in commands
    ]
    kind, cloud = (yaml.safe_load((ROOT / "manifests/examples/demo-cpu.yaml").read_text()) for _ in range(2))
    kind["spec"]["storage"]["accessMode"] = "ReadWriteOnce"
    cloud["spec"]["sampler"]["image"] = f"mirror/empg/sampler:{__version__}-cpu"
    assert [yaml.safe_load(text) for text in made] == [kind, cloud]


@pytest.mark.parametrize("path", sorted((ROOT / "charts/empg/dashboards").glob("*.json")), ids=lambda path: path.stem)
def test_a_dashboard_fits_a_config_map(path: Path) -> None:
    assert path.stem == json.loads(path.read_text())["uid"]
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", ROOT / "docs/kubernetes.md", ROOT / "docs/training.md", ROOT / "charts/empg/README.md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_documentation_speaks_of_what_there_is(path: Path) -> None:
    text = path.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    assert links
    values = dict(leaves(read_values((ROOT / "charts/empg/values.yaml").read_text())))
    maps = tuple(f"{key}." for key, value in values.items() if isinstance(value.default, dict))
    named = {key for given in re.findall(r"--set (\S+)", text) for key in re.findall(r"(?:^|,)([\w.]+)=", given)}
    assert {key for key in named - values.keys() if not key.startswith(maps)} == set()
    targets = re.findall(r"^make (\w+)", text, re.MULTILINE)
    assert [name for name in targets if f"\n{name}:" not in (ROOT / "Makefile").read_text()] == []
