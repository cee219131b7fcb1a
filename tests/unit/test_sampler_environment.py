import os
import subprocess
import sys
from pathlib import Path

import pytest

from empg_sampler.environment import usable_cpus, variables


def test_cpu_engines_neither_compile_nor_spin() -> None:
    found = variables("cpu", {}, 3)
    assert found["TORCHDYNAMO_DISABLE"] == "1"
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["HF_HUB_OFFLINE"] == "1"


def test_what_the_user_set_stays_but_for_what_the_sampler_rests_on() -> None:
    given = {"OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    found = variables("cpu", given, 3)
    assert "OMP_NUM_THREADS" not in found
    assert "VLLM_LOGGING_LEVEL" not in found
    assert found["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_gpu_engines_may_compile_and_fork_no_workers() -> None:
    found = variables("cuda", {}, 3)
    assert "TORCHDYNAMO_DISABLE" not in found
    assert found["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", None), ("50000 100000", 1), ("100000 100000", 1), ("99900000 100000", None), ("nonsense", None)],
)
def test_the_quota_of_the_pod_bounds_the_threads(tmp_path: Path, quota: str, cpus: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cpus(tmp_path) == (len(os.sched_getaffinity(0)) if cpus is None else cpus)


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path / "absent") == len(os.sched_getaffinity(0))


def test_the_program_starts_without_torch_and_vllm() -> None:
    program = "import sys, empg_sampler.main; sys.exit(any(m in sys.modules for m in ('torch', 'vllm')))"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
