"""A copy of the project whose cohort and notebooks are stand-ins that take a second: to try the workflow itself."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat

from lungmtl.study.config import RunConfig

PROJECT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 600
STUB_MODULES = {
    "sources/phantom.py": """
        def make_cohort(folder, settings, **options):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cohort.csv").write_text("scan\\na\\n")
    """,
    "data/cohort.py": """
        import pandas as pd
        def read_cohort(path, **options):
            return pd.read_csv(path)
        def included(frame):
            return frame
        def attributes(frame, truth, report):
            return frame
        def missing_images(frame, path):
            return []
    """,
    "data/splits.py": """
        def check_splits(frame, **settings):
            return frame
    """,
    "data/flow.py": """
        def patient_flow(frame, report, **settings):
            return frame
    """,
    "comparison/printed.py": """
        def format_result(aucs, comparisons):
            return aucs.to_csv(index=False)
    """,
    "data/prepared.py": """
        from pathlib import Path
        from lungmtl.data.preparation import prepared_folder
        def prepare_file():
            return None
        def prepare_cohort(frame, root, preparation, *, cache_dir, **settings):
            return prepared_folder(preparation, cache_dir, root), frame.assign(status="ok", reason="")
    """,
}
EXPERIMENT = """
import os, time
from pathlib import Path
import numpy as np, pandas as pd, torch
from lungmtl.study import RunConfig, environment, write_run
from lungmtl.study.record import HISTORY_COLUMNS, PREDICTION_COLUMNS, step_columns
name = f"{experiment}-s{seed}"
for epoch in range(1, epochs + 1):
    print(f"epoch {epoch}/{epochs}  {name}", flush=True)
    time.sleep(0.2)
while Path(f"wait-{name}").exists():
    time.sleep(0.1)
if Path(f"fail-{name}").exists():
    raise ValueError("made to fail")
if Path(f"die-{name}").exists():
    os.kill(os.getpid(), 9)
with open("started.txt", "a") as file:
    file.write(f"{name} {os.environ['OMP_NUM_THREADS']}\\n")
steps = pd.DataFrame({"step": [0], "epoch": [1], "phase": ["balanced"], "focus": [""]})
steps = steps.assign(**{column: 1.0 for column in step_columns(tasks)[4:]})
auc = {"auc": 0.5 + learning_rate, "low": 0.4, "high": 0.9, "n": 2, "positives": 1}
record = dict(
    study=study, experiment=experiment, seed=seed, config={"learning_rate": learning_rate}, tasks=tasks,
    cohort={"sha256": "", "counts": {}}, environment=environment(threads=threads, precision="fp32"),
    seconds={"prepare": 0.0, "train": 1.0, "evaluate": 0.0}, selection={"rule": "last", "epoch": 1},
    metrics={"test": {task: auc for task in tasks}},
)
write_run(
    Path(results_dir) / study / "runs" / name, record, steps=steps,
    history=pd.DataFrame([[1, "train", tasks[0], 0.7, 0.5, 1.0]], columns=list(HISTORY_COLUMNS)),
    predictions=pd.DataFrame([["a", "p", "test", tasks[0], 1, 0.5]], columns=list(PREDICTION_COLUMNS)),
    model={"weight": torch.zeros(2)},
)
"""
COMPARISON = """
from pathlib import Path
from lungmtl.study import collect
folder = Path(results_dir) / study
(folder / "tables").mkdir(exist_ok=True)
metrics = collect(folder).metrics
metrics[metrics["task"] == "lung_cancer"].to_csv(folder / "tables/auc.csv", index=False)
(folder / "tables/comparisons.csv").write_text("experiment,reference,difference,verdict\\n")
with open("started.txt", "a") as file:
    file.write("comparison\\n")
"""
STUDY = """
experiments: [STL, MTL]
seeds: [0]
epochs: 2
"""


def make_project(folder: Path) -> Path:
    """Copy code, workflow and params into `folder`; stand-ins for the cohort and the notebooks."""
    for name in ("lungmtl", "workflow", "params"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in STUB_MODULES.items():
        lines = [line[8:] for line in text.splitlines()]
        (folder / "lungmtl" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "notebooks").mkdir()
    defaults = [f"{name} = {value!r}" for name, value in RunConfig().to_dict().items()]
    write_notebook(folder / "notebooks/02_experiment.ipynb", "\n".join(defaults), EXPERIMENT)
    write_notebook(
        folder / "notebooks/03_comparison.ipynb", 'study = results_dir = ""\nexperiments = seeds = []', COMPARISON
    )
    (folder / "params/standin.yaml").write_text(STUDY, encoding="utf-8")
    return folder


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    """A notebook with a parameters cell and code cells."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[first, *(nbformat.v4.new_code_cell(cell) for cell in cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


def clean_environment() -> dict[str, str]:
    """The variables of a shell that has just been opened: nothing is active, and no `make` runs around it."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def start(project: Path, *arguments: str) -> subprocess.Popen:
    """Start `python -m lungmtl` on the project's code, in a process group of its own; it can be interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # inherited, where a shell runs the tests in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {**os.environ, "PYTHONPATH": str(project)}
    return subprocess.Popen(
        [sys.executable, "-m", "lungmtl", *arguments],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )


def call(project: Path, *arguments: str, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Run `python -m lungmtl` to its end; exit status and what it said."""
    process = start(project, *arguments)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output
