from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from empg import __version__
from empg_operator import flags
from empg_operator.settings import Settings

ROOT = Path(__file__).parents[2]


def test_without_flags_all_is_default() -> None:
    settings, others = flags.parse([])
    assert settings == Settings()
    assert others.kubeconfig is None


def test_images_are_those_of_this_version() -> None:
    """A tag that moves would give the attempts of one run different programs."""
    chart = yaml.safe_load((ROOT / "charts/empg/values.yaml").read_text())["runs"]
    assert Settings().sampler_image == f"{chart['samplerImage']['repository']}:{__version__}"
    assert Settings().learner_image == f"{chart['trainerImage']['repository']}:{__version__}"


def test_every_field_has_a_flag_and_every_flag_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags.parse(["--help"])
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text


def test_flags_become_settings() -> None:
    settings, _ = flags.parse(
        [
            "--workers=3",
            "--resync-seconds=1.5",
            "--namespaces=a",
            "--namespaces=b",
            "--network-policies",
            "--no-pod-monitors",
            '--extra-egress={"to": [], "ports": [{"port": 443}]}',
            "--extra-egress={}",
            '--pod-monitor-labels={"release": "prometheus"}',
        ]
    )
    assert settings == Settings(
        workers=3,
        resync_seconds=1.5,
        namespaces=("a", "b"),
        network_policies=True,
        pod_monitors=False,
        extra_egress=({"to": [], "ports": [{"port": 443}]}, {}),
        pod_monitor_labels={"release": "prometheus"},
    )


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--workers=0", "--workers: Input should be greater than or equal to 1"),
        ("--workers=many", "--workers: Input should be a valid integer"),
        ("--pod-monitor-labels={", "'{' is not JSON"),
        ("--extra-egress=[1]", "--extra-egress: Input should be a valid dictionary"),
        ("--network-policies", "error: --network-policies needs --api-server-cidrs, the addresses that"),
        ("--api-server-cidrs=10.0.0.1", "'10.0.0.1' is an address; write it as a network, 10.0.0.1/32"),
        ("--api-server-cidrs=fd00::1", "write it as a network, fd00::1/128"),
        ("--api-server-cidrs=10.0.0.0/33", "'10.0.0.0/33' is no network; write it as 10.0.0.1/32"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_flags_are_named(flag: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        flags.parse([flag])
    assert said in capsys.readouterr().err
