import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from standin import clean_environment

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


def make(*words, **active):
    """Status and output of `make` in a shell where these environments are active."""
    how = {"cwd": PROJECT, "env": clean_environment() | active, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(["make", *words], **how, encoding="utf-8", check=False)
    return done.returncode, done.stdout


@pytest.fixture
def standin(tmp_path):
    """An environment whose Python prints what it is asked."""
    (tmp_path / "bin").mkdir()
    for name in ("lungmtl", "python"):
        (tmp_path / "bin" / name).write_text('#!/bin/sh\necho "asked: $@"\n', encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("kind", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_make_uses_the_active_environment_when_asked_and_installs_nothing(standin, kind):
    status, output = make("study", "PARAMS=a.yaml", "VENV=active", **{kind: str(standin)})

    assert status == 0
    assert output.split() == ["asked:", "-m", "lungmtl", "study", "a.yaml", "--seeds", "--profile", "local", "--"]
    assert make("-n", "test", "VENV=active", **{kind: str(standin)})[1].count(f"{standin}/bin/") == 3


@pytest.mark.parametrize(
    ("venv", "active", "found"),
    [
        ("active", {}, "VENV=active needs an active environment, and none is: conda activate lungmtl"),
        (
            "active",
            {"CONDA_PREFIX": "/bare"},
            "VENV=active needs lungmtl in the active environment, and /bare has none",
        ),
        ("mine", {}, "VENV is active or .venv, not mine."),
    ],
)
def test_make_says_in_one_line_what_is_wrong_with_the_environment(venv, active, found):
    status, output = make("study", f"VENV={venv}", **active)

    assert status == 2
    assert len(output.splitlines()) == 1
    assert found in output
