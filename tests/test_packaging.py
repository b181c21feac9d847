"""The package as it is installed: the policies alone in a bare environment, a console script with a version."""

import os
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

import lungmtl

PROJECT = Path(__file__).resolve().parents[1]
LOOP = """
from lungmtl.policies import BW, ITW, PFLP, Step
policy = ITW(PFLP(BW(["main", "other"], [3, 1]), period=1), start=0.5)
print([policy(Step(step, 4, 0, 1)).weights for step in range(4)])
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Python of an environment that holds this package's wheel and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copytree(PROJECT / "lungmtl", folder / "source" / "lungmtl")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "./source"]
    subprocess.run([*command, "--wheel-dir", str(folder)], check=True, capture_output=True, cwd=folder)
    venv.create(folder / "venv", with_pip=False)
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    with zipfile.ZipFile(next(folder.glob("lungmtl-*.whl"))) as wheel:
        wheel.extractall(site)
    return folder / "venv" / "bin" / "python"


def run(python, code):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, check=False)


def test_policies_work_in_a_bare_environment(bare):
    done = run(bare, LOOP)
    assert done.stdout.strip() == "[(3.0, 0.1), (0.30000000000000004, 1.0), (3.0, 0.01), (3.0, 0.01)]", done.stderr


def test_the_wheel_holds_every_room_and_the_templates(bare):
    done = run(bare, "import lungmtl, pathlib; print(*pathlib.Path(lungmtl.__file__).parent.rglob('*'))")
    names = {Path(path).name for path in done.stdout.split()}
    assert names >= {path.name for path in (PROJECT / "lungmtl").rglob("*") if path.suffix in (".py", ".j2")}


def test_the_console_script_says_version_and_help_at_once():
    script = Path(sys.executable).with_name("lungmtl")
    version = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.strip() == f"lungmtl {lungmtl.__version__}"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([script, "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
