"""Condition of a run, from its folder alone: new, interrupted, complete, damaged or changed.

A complete run stores its record twice: as `record.json`, and as a copy whose name contains the run's key (the hash of
notebook, parameters, code and cohort). The copy survives a workflow engine that deletes a rule's outputs before it
starts the rule. The record contains the hashes of the run's files.
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
    """One of complete, damaged, interrupted, changed and new; and the reason, if not complete."""

    kind: str
    reason: str = ""


def condition(config: RunConfig, *, cohort: Path) -> Condition:
    """Condition of a run under its current key; for a damaged run the reason names the file."""
    folder = plan.run_dir(config)
    marks = [path.name for prefix in (KEPT_PREFIX, CHECKPOINT_PREFIX) for path in sorted(folder.glob(f"{prefix}*"))]
    code = plan.run_key(config, cohort=cohort) if marks and cohort.is_file() else ""
    if kept(folder, code).name in marks:
        found = next(_damage(folder, code), "")
        return Condition("damaged", found) if found else Condition("complete")
    steps = [int(name.split(".")[2]) for name in marks if code and name.startswith(f"{CHECKPOINT_PREFIX}{code}.")]
    if steps:
        return Condition("interrupted", f"resumes after step {steps[-1]}")
    if marks or (folder / plan.RECORD_FILE).is_file():
        return Condition("changed", "other settings, code or cohort" if cohort.is_file() else "its cohort is missing")
    return Condition("new")


def to_do(runs: Sequence[RunConfig]) -> dict[str, Condition]:
    """Runs that are not complete under their current keys, by name; without a cohort table, all runs."""
    cohort = plan.cohort_path(runs[0])
    found = {plan.name_of(config): condition(config, cohort=cohort) for config in runs}
    return {name: one for name, one in found.items() if one.kind != "complete"}


def restore(config: RunConfig, *, cohort: Path) -> bool:
    """Restore a run's record or its copy from the other if one is missing or damaged; False if both are."""
    folder, code = plan.run_dir(config), plan.run_key(config, cohort=cohort)
    text = _whole(folder, code)
    for path in (kept(folder, code), folder / plan.RECORD_FILE) if text else ():
        found = path.read_bytes() if path.is_file() else b""
        if found != text:
            write(path, text)
        if found not in (b"", text):
            _logger.warning("%s: %s was damaged and has been restored from its copy.", plan.name_of(config), path.name)
    return bool(text)


def kept(folder: Path, code: str) -> Path:
    """Path of the copy of a run's record that is named by its key."""
    return folder / f"{KEPT_PREFIX}{code}.json"


def _damage(folder: Path, code: str) -> Iterator[str]:
    """Yield what is missing or changed in a run that was complete."""
    text = _whole(folder, code)
    if not text:
        yield f"{plan.RECORD_FILE} and its copy are damaged"
        return
    hashes = json.loads(text).get("files", {})  # older records have none
    for name in plan.FILES[:-1]:
        if not (folder / name).is_file():
            yield f"{name} is missing"
        elif name in hashes and sha256(folder / name) != hashes[name]:
            yield f"{name} has been modified"


def _whole(folder: Path, code: str) -> bytes:
    """The record, from the first of its two files that is valid JSON; empty if neither is."""
    for path in (kept(folder, code), folder / plan.RECORD_FILE):
        text = path.read_bytes() if path.is_file() else b""
        try:
            if isinstance(json.loads(text), dict):
                return text
        except ValueError:
            continue
    return b""
