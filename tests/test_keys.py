"""What a change of the code redoes: the runs and prepared scans that execute it, and no others."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lungmtl.keys import Place, bare, code_key

PROJECT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ("STL", "MTL2", "ITW1")  # balanced weights, PFLP, ITW
ASK = """
import json, sys
from pathlib import Path
from lungmtl.data import prepared_folder
from lungmtl.keys import Place, code_key
from lungmtl.study import plan
runs = plan.plan_runs(sys.argv.pop(1))
keys = {run.experiment: plan.settings_key(run) for run in runs if run.experiment in sys.argv[1:]}
keys |= {"prepared": str(plan.prepared_dir(runs[0])), "compared": plan.comparison_key(runs)}
keys["checked"] = code_key(Place("lungmtl.data.checks", "check_file"))
print(json.dumps(keys))
"""
ALL = {*EXPERIMENTS, "prepared", "checked", "compared"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of what keys are made of."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("lungmtl", "params", "notebooks"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return folder


def keys(folder: Path, *, study: str = "smoke", experiments: tuple[str, ...] = EXPERIMENTS) -> dict[str, str]:
    command = [sys.executable, "-c", ASK, f"params/{study}.yaml", *experiments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def before(copy):
    return keys(copy)


@contextlib.contextmanager
def changed(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    """A file with another text, put back in the end."""
    text = path.read_text(encoding="utf-8")
    assert change(text) != text, f"nothing changes in {path.name}"
    try:
        path.write_text(change(text), encoding="utf-8")
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def redone(copy: Path, before: dict[str, str], file: str, old: str, new: str, **asked: object) -> set[str]:
    """Names of what a change of one file redoes; `asked` as of `keys`."""
    with changed(copy / file, lambda text: text.replace(old, new, 1)):
        after = keys(copy, **asked)
    return {name for name, key in before.items() if after[name] != key}


def test_keys_are_the_same_twice_and_differ_between_policies(copy, before):
    assert keys(copy) == before
    assert set(before) == ALL
    assert len(set(before.values())) == len(ALL)


def test_what_no_run_executes_redoes_nothing(copy, before):
    changes = [
        ("lungmtl/network/model.py", "import torch\n", "import torch  # a comment\n"),
        ("lungmtl/network/training.py", '"""The one training loop:', '"""A training loop:'),
        ("lungmtl/data/lungs.py", "import numpy as np\n", "import numpy as np\n\n# a comment\n"),
        ("lungmtl/cli.py", "BAD_INPUT = 2", "BAD_INPUT = 3"),
        ("lungmtl/sources/nlst_series.py", "MAX_THICKNESS_MM = 3.3", "MAX_THICKNESS_MM = 3.4"),
        ("lungmtl/policies/catalogue.py", '("RLW", "UW",', '("NEW", "RLW", "UW",'),
        ("lungmtl/network/settings.py", '"model.MultiTaskNet"}', '"model.MultiTaskNet", "other": "other.Net"}'),
        ("notebooks/02_experiment.ipynb", "One line per epoch", "A line per epoch"),
    ]
    texts = {copy / file: (copy / file).read_text(encoding="utf-8") for file, _, _ in changes}
    for file, old, new in changes:
        assert old in texts[copy / file]
        (copy / file).write_text(texts[copy / file].replace(old, new, 1), encoding="utf-8")
    after = keys(copy)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    assert after == before


def test_a_figure_is_part_of_the_comparison_alone(copy, before):
    change = ("lungmtl/figures/style.py", "def new_figure(", "def new_figure(unused, ")
    assert redone(copy, before, *change) == {"compared"}


def test_a_new_module_redoes_nothing(copy, before):
    new = [copy / "lungmtl" / name for name in ("new.py", "policies/new.py", "data/other.py")]
    for path in new:
        path.write_text("X = 1\n", encoding="utf-8")
    after = keys(copy)
    for path in new:
        path.unlink()
    assert after == before


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("lungmtl/network/model.py", "functional.relu(self.norm2", "functional.gelu(self.norm2", set(EXPERIMENTS)),
        ("lungmtl/network/training.py", "MAX_GRADIENT_NORM = 100.0", "MAX_GRADIENT_NORM = 1.0", set(EXPERIMENTS)),
        ("lungmtl/network/augmentation.py", "MAX_SCALE = 0.06", "MAX_SCALE = 0.1", set(EXPERIMENTS)),
        ("lungmtl/policies/schedules.py", "count // self.period", "count // (2 * self.period)", {"MTL2"}),
        ("lungmtl/policies/schedules.py", "- 1e-9), n_steps - 1)", "), n_steps - 1)", {"ITW1"}),
        ("lungmtl/data/lungs.py", "CLOSING_MM = 10.0", "CLOSING_MM = 5.0", {*EXPERIMENTS, "prepared", "checked"}),
        (
            "lungmtl/data/region.py",
            "class Region(Lungs):",
            "class Region(Lungs, object):",
            {*EXPERIMENTS, "prepared", "checked"},
        ),
        ("lungmtl/data/pixels.py", "DARK_HU = -500", "DARK_HU = -400", {*EXPERIMENTS, "prepared", "checked"}),
        ("lungmtl/data/thumbnails.py", "THUMBNAIL_MM = 2.5", "THUMBNAIL_MM = 3.0", {"checked"}),
        ("lungmtl/comparison/printed.py", "PUBLISHED_N = 592", "PUBLISHED_N = 593", {"compared"}),
        ("lungmtl/report/page.html.j2", "</html>", "</html><!-- -->", {"compared"}),
        ("notebooks/02_experiment.ipynb", "found = gather(config)", "found = gather(config) or 1", set(EXPERIMENTS)),
    ],
)
def test_what_is_executed_redoes_what_executes_it(copy, before, file, old, new, expected):
    assert redone(copy, before, file, old, new) == expected


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("losses.py", "[0.5 - weight * loss", "[0.4 - weight * loss", {"UW", "UW-ITW"}),
        ("rules.py", "0.9 ** state", "0.8 ** state", {"UW", "UW-ITW", "GradNorm"}),
        ("borrowed.py", "class PCGrad(Borrowed)", "class PCGrad(Borrowed, object)", {"PCGrad", "PCGrad-parameters"}),
        ("borrowed.py", "manual_seed(drawn", "manual_seed(1 + drawn", {"PCGrad", "PCGrad-parameters"}),
        ("gradients.py", "alpha: float = 1.5", "alpha: float = 1.4", {"GradNorm"}),
    ],
)
def test_a_rival_is_part_of_its_own_runs_alone(copy, file, old, new, expected):
    rivals = ("MTL2", "ITW1", "UW", "UW-ITW", "PCGrad", "PCGrad-parameters", "GradNorm")
    asked = {"study": "policies-smoke", "experiments": rivals}
    assert redone(copy, keys(copy, **asked), f"lungmtl/policies/{file}", old, new, **asked) == expected


def test_the_wide_region_is_no_part_of_the_runs_that_do_not_see_it(copy):
    with changed(copy / "params" / "smoke.yaml", lambda text: text + "region: tight\n"):
        change = ("lungmtl/data/region.py", "class Region(Lungs):", "class Region(Lungs, object):")
        assert redone(copy, keys(copy), *change) == {"checked"}


def test_a_weights_file_that_a_run_starts_from_counts_by_its_content(copy):
    weights, found = copy / "notebooks" / "start.safetensors", []
    with changed(copy / "params" / "smoke.yaml", lambda text: text + "start_weights: start.safetensors\n"):
        for content in (b"one", b"two", b"one"):
            weights.write_bytes(content)
            found.append(keys(copy)["STL"])
    assert found[0] == found[2] != found[1]


def test_batches_in_focus_reach_the_policy_that_focuses(copy):
    with changed(copy / "params" / "smoke.yaml", lambda text: text + "sampler: focus\n"):
        change = ("lungmtl/policies/schedules.py", "count // self.period", "count // (2 * self.period)")
        assert redone(copy, keys(copy), *change) == set(EXPERIMENTS)


def test_code_is_compared_without_comments_docstrings_and_layout():
    first = 'def f(x):\n    """One."""\n    return (x +\n            1)  # why\n'
    assert bare(first) == bare("def f(x):\n    return x + 1\n") != bare("def f(x):\n    return x + 2\n")


def test_an_entry_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"must be in the package\. Found lungmtl\.none"):
        code_key(Place("lungmtl.none", "f"))
    with pytest.raises(ValueError, match=r"must be in the package\. Found none in lungmtl\.files"):
        code_key(Place("lungmtl.files", "none"))
