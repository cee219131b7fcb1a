"""The committed manifest reference is the generated one."""

from pathlib import Path

from empg.api.reference import reference


def test_the_reference_is_up_to_date() -> None:
    committed = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text(encoding="utf-8")
    assert committed == reference(), "run: python -m empg.api.reference > docs/manifest.md"
