"""`python -m hack.packaging [--check]`: write the generated files of chart and manifests, or say which are stale."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hack.dashboards.all import DASHBOARDS
from hack.dashboards.grafana import render
from hack.packaging.crd_template import crd_template
from hack.packaging.kustomize import operator_manifest
from hack.packaging.values import read_values, schema, table

ROOT = Path(__file__).parents[2]
_TABLE_START = "<!-- values: made from values.yaml by `make generate` -->\n"
_TABLE_END = "<!-- end of values -->\n"


def pure_files(root: Path = ROOT) -> dict[Path, str]:
    """Path and text of every generated file that takes nothing but this repository."""
    chart = root / "charts/empg"
    values = read_values((chart / "values.yaml").read_text())
    made = {
        chart / "values.schema.json": _json(schema(values)),
        chart / "README.md": _with_table((chart / "README.md").read_text(), table(values)),
        chart / "templates/crd.yaml": crd_template((root / "manifests/crd.yaml").read_text()),
        # NOTES.txt shows it, to users who may have nothing but the chart.
        chart / "files/first-run.yaml": (root / "manifests/examples/demo-cpu.yaml").read_text(),
    }
    return made | {chart / f"dashboards/{board.uid}.json": _json(render(board)) for board in DASHBOARDS}


def rendered_files(root: Path = ROOT) -> dict[Path, str]:
    """Path and text of every generated file that takes Helm."""
    return {root / "manifests/operator.yaml": operator_manifest(root / "charts/empg")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code, 1 if a file is stale."""
    parser = argparse.ArgumentParser(prog="python -m hack.packaging", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    check = parser.parse_args(arguments).check
    stale = _write(pure_files(), check)
    stale += _write(rendered_files(), check)  # Helm reads what was just written
    for path in stale:
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


def _write(files: dict[Path, str], check: bool) -> list[Path]:
    """The files that differ, which are written unless `check`."""
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if not check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
    return stale


def _json(data: object) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _with_table(readme: str, rows: str) -> str:
    before, start, rest = readme.partition(_TABLE_START)
    _, end, after = rest.partition(_TABLE_END)
    if not (start and end):
        raise ValueError(f"charts/empg/README.md lacks the lines {_TABLE_START.strip()} and {_TABLE_END.strip()}")
    return before + start + "\n" + rows + "\n" + end + after


if __name__ == "__main__":
    sys.exit(main())
