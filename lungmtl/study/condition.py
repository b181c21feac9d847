"""Condition of a run, from its folder alone: new, interrupted, complete, damaged, or of other settings.

A complete run has its record twice: as `record.json`, and under a name that holds the run's key, which says for which
notebook, parameters, code and cohort, and outlives a workflow engine that deletes a rule's outputs before it starts
the rule. The record holds the hashes of the run's files.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lungmtl.files import sha256, write
from lungmtl.study import plan
from lungmtl.study.config import RunConfig

KEPT_PREFIX = "complete."  # complete.<key>.json in a run's folder
CHECKPOINT_PREFIX = "checkpoint."  # checkpoint.<key>.<step>.<hash>.safetensors, while the run is computed
_logger = logging.getLogger(__name__)


class Condition(NamedTuple):
    """What a run is: complete, damaged, interrupted, changed or new; and why, if it is not complete."""

    kind: str
    reason: str = ""


def condition(config: RunConfig, *, cohort: Path) -> Condition:
    """Condition of a run under its present key; of a damaged one the reason names the file."""
    folder = plan.run_dir(config)
    marks = [path.name for prefix in (KEPT_PREFIX, CHECKPOINT_PREFIX) for path in sorted(folder.glob(f"{prefix}*"))]
    code = plan.run_key(config, cohort=cohort) if marks and cohort.is_file() else ""
    if kept(folder, code).name in marks:
        found = next(_damage(folder, code), "")
        return Condition("damaged", found) if found else Condition("complete")
    steps = [int(name.split(".")[2]) for name in marks if code and name.startswith(f"{CHECKPOINT_PREFIX}{code}.")]
    if steps:
        return Condition("interrupted", f"goes on after step {steps[-1]}")
    if marks or (folder / plan.RECORD_FILE).is_file():
        return Condition("changed", "other settings, code or cohort" if cohort.is_file() else "its cohort is not there")
    return Condition("new")


def to_do(runs: Sequence[RunConfig]) -> dict[str, Condition]:
    """Runs that are not complete under their present keys, by name; without a cohort table all."""
    cohort = plan.cohort_path(runs[0])
    found = {plan.name_of(config): condition(config, cohort=cohort) for config in runs}
    return {name: one for name, one in found.items() if one.kind != "complete"}


def restore(config: RunConfig, *, cohort: Path) -> bool:
    """Give a run its record under both names, whichever is gone or damaged; False if both are."""
    folder, code = plan.run_dir(config), plan.run_key(config, cohort=cohort)
    text = _whole(folder, code)
    for path in (kept(folder, code), folder / plan.RECORD_FILE) if text else ():
        found = path.read_bytes() if path.is_file() else b""
        if found != text:
            write(path, text)
        if found not in (b"", text):
            _logger.warning("%s: %s was damaged, and is restored from its copy.", plan.name_of(config), path.name)
    return bool(text)


def kept(folder: Path, code: str) -> Path:
    """Where the record of a run stands under its key."""
    return folder / f"{KEPT_PREFIX}{code}.json"


def _damage(folder: Path, code: str) -> Iterator[str]:
    """What is wrong with a run that was complete."""
    text = _whole(folder, code)
    if not text:
        yield f"{plan.RECORD_FILE} and its copy are damaged"
        return
    hashes = json.loads(text).get("files", {})  # older records have none
    for name in plan.FILES[:-1]:
        if not (folder / name).is_file():
            yield f"{name} is gone"
        elif name in hashes and sha256(folder / name) != hashes[name]:
            yield f"{name} is not as it was written"


def _whole(folder: Path, code: str) -> bytes:
    """The record by that of its names under which it can be read; empty if there is none."""
    for path in (kept(folder, code), folder / plan.RECORD_FILE):
        text = path.read_bytes() if path.is_file() else b""
        try:
            if isinstance(json.loads(text), dict):
                return text
        except ValueError:
            continue
    return b""
