"""All children of one small run, to be read: `python tests/unit/test_builders_golden.py` writes them anew."""

from __future__ import annotations

from pathlib import Path

import yaml
from built_runs import built_run

from empg_operator.builders.children import standing_children
from empg_operator.builders.learner import learner_job, learner_pod_template
from empg_operator.builders.sampler import sampler_deployment, sampler_pod_template
from empg_operator.revisions import controller_revision, template_digest
from empg_operator.settings import Settings

GOLDEN = Path(__file__).parents[1] / "data" / "children.yaml"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such, and no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def children() -> str:
    run = built_run(
        learner={"nodes": 2, "processes": 8},
        sampler={"replicas": 4, "tensorParallel": 2},
        queueName="team-queue",
        priorityClassName="training",
    )
    settings = Settings(
        sampler_image="sampler:1",
        learner_image="learner:1",
        network_policies=True,
        api_server_cidrs=("10.0.0.1/32",),
        pod_monitor_labels={"release": "prometheus"},
    )
    sampler, learner = sampler_pod_template(run, settings, None), learner_pod_template(run, settings, None)
    digest = template_digest(run, "learner")
    built = (
        *standing_children(run, settings, None, True),
        sampler_deployment(run, sampler, 4, "demo-sampler-11111111", None, None),
        {**controller_revision(run, "learner", digest, learner, 1), "data": "the pod template"},
        learner_job(run, learner, 1, "demo-learner-22222222"),
    )
    return yaml.dump_all(built, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def test_the_children_of_a_small_run_are_as_written_down() -> None:
    assert children() == GOLDEN.read_text(), "if this is meant, run this file and read what changed"


if __name__ == "__main__":
    GOLDEN.write_text(children())
