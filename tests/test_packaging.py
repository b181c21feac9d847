"""The package as it is installed: the policies alone in a bare environment, a console script with a version."""

import importlib.util
import os
import re
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
TORCH_ALONE = [
    "torch",
    "torchgen",
    "torchjd",
    "typing_extensions",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
]
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


@pytest.fixture(scope="module")
def torch_alone(tmp_path_factory):
    """Folder with torch, TorchJD and what they need."""
    folder = tmp_path_factory.mktemp("torch")
    for name in TORCH_ALONE:
        found = Path(importlib.util.find_spec(name).origin)
        found = found.parent if found.name == "__init__.py" else found
        (folder / found.name).symlink_to(found)
    return folder


def run(python, code, folder=""):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [str(python), "-c", code]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd="/", env=environment, check=False)


def test_policies_work_in_a_bare_environment(bare):
    done = run(bare, LOOP)
    assert done.stdout.strip() == "[(3.0, 0.1), (0.30000000000000004, 1.0), (3.0, 0.01), (3.0, 0.01)]", done.stderr


def test_the_readmes_loop_trains_under_each_kind_of_policy_with_torch_alone(bare, torch_alone):
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    loop = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "lungmtl.policies" in block)
    kinds = [re.search(r"policy = (.*?)  # ", loop)[1], *re.findall(r"or (\w+\(tasks, .*?\))", loop)]
    ends = "print(f'{losses.mean():.3f}')\n"
    codes = ["torch.manual_seed(0)\n" + re.sub("policy = .*", f"policy = {kind}", loop) + ends for kind in kinds]
    done = run(bare, "import torch\n" + "\n".join(codes), torch_alone)
    assert len(kinds) == 3
    assert [float(loss) < 0.1 for loss in done.stdout.split()] == [True] * 3, done.stdout + done.stderr  # 1 untrained


def test_a_loss_rule_works_in_a_bare_environment(bare):
    done = run(bare, "from lungmtl.policies import UW, Step\nprint(UW('ab', [1, 1])(Step(0, 9, 0, 1, [1, 2])).weights)")
    assert done.stdout.strip() == "(0.5, 0.5)", done.stderr


def test_the_wheel_holds_every_room_and_the_templates(bare):
    done = run(bare, "import lungmtl, pathlib; print(*pathlib.Path(lungmtl.__file__).parent.rglob('*'))")
    names = {Path(path).name for path in done.stdout.split()}
    assert names >= {path.name for path in (PROJECT / "lungmtl").rglob("*") if path.suffix in (".py", ".j2")}


def test_the_console_script_says_version_and_help_at_once():
    script = Path(sys.executable).with_name("lungmtl")
    version = subprocess.run([script, "--version"], capture_output=True, encoding="utf-8", check=True)
    assert version.stdout.strip() == f"lungmtl {lungmtl.__version__}"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([script, "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
