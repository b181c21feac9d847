import re
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[1]
LOCK = (PROJECT / "requirements.lock").read_text(encoding="utf-8")


def locked_pins():
    return [line.removesuffix("\\").strip() for line in LOCK.splitlines() if "==" in line and line[0].isalnum()]


def conda_lines():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    return next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))


def normal(requirement):
    name = re.split(r"[<>=!~ ;\[]", requirement.strip())[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def test_conda_environment_has_the_pins_of_the_lock_and_the_package():
    assert sorted(conda_lines()) == sorted([*locked_pins(), "torch==2.13.0", "-e ."])


def test_makefile_has_the_same_torch():
    assert "TORCH ?= torch==2.13.0" in (PROJECT / "Makefile").read_text(encoding="utf-8")


def test_lock_pins_every_dependency_but_torch_with_hashes():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lists = [project["dependencies"], *(extras[name] for name in ("study", "policies", "predict", "dev", "lock"))]
    wanted = {normal(line) for lines in lists for line in lines} - {"lungmtl"}
    blocks = re.split(r"\n(?=\w)", LOCK.strip())

    assert wanted - {normal(pin) for pin in locked_pins()} == {"torch"}
    assert all("==" in block.splitlines()[0] and "--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("word", ["nvidia", "cuda", "triton", "://", "--find-links", "--index-url", " /"])
def test_lock_is_free_of(word):
    assert word not in LOCK


def test_the_core_asks_for_torch_numpy_and_pandas_alone():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert {normal(line) for line in project["dependencies"]} == {"torch", "numpy", "pandas"}
    assert set(project["optional-dependencies"]) == {"study", "policies", "nlst", "predict", "dev", "lock"}
    assert project["scripts"] == {"lungmtl": "lungmtl.cli:main"}
