"""The core is what the operator, the command line and graders import: it must stay light."""

import subprocess
import sys

PROBE = """
import importlib, pkgutil, sys
import empg
for module in pkgutil.walk_packages(empg.__path__, "empg."):
    importlib.import_module(module.name)
heavy = [name for name in ("torch", "vllm", "transformers", "deepspeed") if name in sys.modules]
print(",".join(heavy) or "light", len([m for m in sys.modules if m.startswith("empg.")]))
"""


def test_no_module_of_the_core_imports_an_engine() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120, check=True)
    verdict, modules = done.stdout.split()
    assert verdict == "light"
    assert int(modules) > 30


def test_the_operator_folder_never_shadows_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.add(1, 2))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "3"
