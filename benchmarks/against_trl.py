"""An iteration of EMPG beside a GRPO step of TRL's trainer: same model, prompts, batch and lengths, on this machine.

    python benchmarks/against_trl.py [--quick] [--iterations N] [--generation vllm transformers]

Prints medians without the first iterations, and their ratios. TRL is no dependency of EMPG. Its hand-over of weights to
vLLM ends with an AttributeError on CPUs with AVX-512, for which vLLM packs weights; transformers generates by default.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
from pathlib import Path

from demo_run import SMALL, run_demo
from host import describe
from peer import seconds_of

INSTALL = "uv pip install --target build/trl --no-deps trl==1.16.0 accelerate && export PYTHONPATH=build/trl"


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="a small batch, for a look whether it works")
    arguments.add_argument("--iterations", type=int, default=12, metavar="N", help="default: 12")
    arguments.add_argument("--generation", nargs="+", choices=("vllm", "transformers"), default=["transformers"])
    args = arguments.parse_args()
    if importlib.util.find_spec("trl") is None:
        sys.exit(f"TRL is not installed; beside EMPG's own packages: {INSTALL}")
    iterations = 4 if args.quick else args.iterations
    print(describe())
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "run"
        rows = run_demo(root, iterations, SMALL if args.quick else {})
        whole = statistics.median(row["seconds_total"] for row in rows)
        print(f"EMPG, an iteration               {whole:.2f} s")
        for generation in args.generation:
            step = statistics.median(seconds_of("trl_loop.py", root, iterations, generation))
            print(f"TRL with {generation:12}, a step    {step:.2f} s, {step / whole:.1f} times as long")


if __name__ == "__main__":
    main()
