"""The benchmarks of the learner run to their end and print what they should, whatever the times."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / name), "--quick"], capture_output=True, text=True, timeout=300, check=False
    )


def test_attention_is_timed_beside_two_others_that_compute_the_same() -> None:
    done = run("attention.py")
    assert done.returncode == 0, done.stderr
    assert "ours" in done.stdout
    figures = re.findall(r"^\d+ .*?((?: +\d+\.\d){3})$", done.stdout, re.MULTILINE)
    assert len(figures) == 3
    assert all(float(figure) > 0 for row in figures for figure in row.split())


def test_shared_prompts_are_timed_beside_own_ones() -> None:
    done = run("shared_prompts.py")
    assert done.returncode == 0, done.stderr
    figures = re.findall(r"^prompt \d+, answer \d+ +(\d+\.\d) +(\d+\.\d) +(\d+\.\d\d)$", done.stdout, re.MULTILINE)
    assert len(figures) == 3
    for own, shared, ratio in figures:
        assert float(ratio) == pytest.approx(float(own) / float(shared), abs=0.02)


def test_an_iteration_is_timed_beside_the_plain_loop() -> None:
    done = run("iteration_overhead.py")
    assert done.returncode == 0, done.stderr
    ours, plain, ratio = (
        float(re.search(rf"^{name} +(\d+\.\d+)", done.stdout, re.MULTILINE)[1])
        for name in ("through the run directory", "plain loop", "ratio")
    )
    assert ratio == pytest.approx(ours / plain, rel=0.2)


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is installed")
def test_without_trl_one_line_says_how_to_install_it() -> None:
    done = run("against_trl.py")
    assert done.returncode == 1
    assert "uv pip install" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs TRL")
def test_an_iteration_is_timed_beside_a_step_of_trl() -> None:
    done = run("against_trl.py")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^TRL with transformers, a step +\d+\.\d+ s, \d+\.\d times as long$", done.stdout, re.MULTILINE)
