"""What an iteration of EMPG costs beside the plainest loop in one process.

    python benchmarks/iteration_overhead.py [--quick] [--iterations N]

Runs the demo through the run directory, with a learner and a sampler process, then its prompts, batch and lengths
through `plain_loop.py`, one after the other. Prints medians over iterations, without the first ones, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from demo_run import SMALL, run_demo
from host import describe
from peer import seconds_of

PARTS = ("sampling", "sealing", "learning", "publishing", "state")


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="a small batch, for a look whether it works")
    arguments.add_argument("--iterations", type=int, default=22, metavar="N", help="default: 22")
    args = arguments.parse_args()
    iterations = 4 if args.quick else args.iterations
    print(describe())
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "run"
        rows = run_demo(root, iterations, SMALL if args.quick else {})
        plain = statistics.median(seconds_of("plain_loop.py", root, iterations))
    whole = statistics.median(row["seconds_total"] for row in rows)
    parts = [f"{part} {statistics.median(row[f'seconds_{part}'] for row in rows):.2f}" for part in PARTS]
    print(f"through the run directory  {whole:.2f} s ({', '.join(parts)})")
    print(f"plain loop                 {plain:.2f} s")
    print(f"ratio                      {whole / plain:.2f}")


if __name__ == "__main__":
    main()
