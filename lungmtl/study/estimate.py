"""Estimate the duration of a study's runs from the records of past runs."""

import json
import statistics
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lungmtl.study import plan
from lungmtl.study.config import RunConfig
from lungmtl.study.runner import EXECUTED_FILE

STEP_SETTINGS = ("network", "width", "shape", "batch_size", "precision")  # settings that decide the time of a step
TENTHS = 10
START_S = 10.0  # chosen by us: start of a run's notebook (kernel, imports) where no past one is there to tell


class Pace(NamedTuple):
    """Seconds of a run with its start: the median of past runs on its grid, and their fastest and slowest tenth."""

    median_s: float
    low_s: float
    high_s: float
    n_past: int


def past_records(config: RunConfig) -> list[dict[str, Any]]:
    """Records of all studies of a run's results folder; `start_s`, of a run whose notebook is there, is added."""
    paths = sorted(plan.study_dir(config).parent.glob(f"*/runs/*/{plan.RECORD_FILE}"))
    return [record | _started(path.with_name(EXECUTED_FILE), record) for path in paths for record in _read(path)]


def pace(config: RunConfig, records: Sequence[dict[str, Any]]) -> Pace | None:
    """Estimated seconds of a run, from records of past runs; None if there is none on its grid.

    Past runs are scaled by epochs and training scans, without their start: that is the median of those known. For an
    own cohort only past runs on the same table count.
    """
    found, starts = [], [record["start_s"] for record in records if "start_s" in record]
    for record in records:
        past, central = record["config"], record["cohort"]["counts"].get("train", {}).get(record["tasks"][0], {})
        n_past = central.get("n", 0) + central.get("unknown", 0)
        if n_past and all(past.get(name, getattr(config, name)) == getattr(config, name) for name in STEP_SETTINGS):
            n_scans = n_past if config.cohort else config.phantom_scans[0]
            if not config.cohort or Path(past["cohort"]).name == Path(config.cohort).name:
                share = config.epochs * n_scans / (past["epochs"] * n_past)
                found.append(share * sum(record["seconds"].values()))
    if not found:
        return None
    start_s = statistics.median(starts or [START_S])
    found = [start_s + seconds for seconds in found]
    cuts = statistics.quantiles(found, n=TENTHS, method="inclusive") if len(found) > 1 else found
    return Pace(statistics.median(found), cuts[0], cuts[-1], len(found))


def remaining_s(runs: Sequence[RunConfig], waiting: Collection[str], *, since: float, slots: int) -> float:
    """Seconds until the waiting runs are done, from the runs completed since a time; 0 before the first.

    Durations are those of the clock, the start of a run's processes included: a run began when the scans were prepared,
    or when the run that was completed `slots` places before it left a slot free.
    """
    prepared = plan.study_dir(runs[0]) / plan.PREPARATION_FILE
    begin = max(since, prepared.stat().st_mtime if prepared.is_file() else since)
    records = [plan.run_dir(config) / plan.RECORD_FILE for config in runs if plan.name_of(config) not in waiting]
    ends = sorted(end for path in records if path.is_file() and (end := path.stat().st_mtime) > begin)
    seconds = [end - free for free, end in zip([begin] * slots + ends, ends, strict=False)]
    return statistics.mean(seconds) * len(waiting) / min(slots, max(1, len(waiting))) if seconds else 0.0


def duration(seconds: float) -> str:
    """Seconds in readable units: 45 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the record, unless it is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return
    if isinstance(record, dict) and "config" in record:
        yield record


def _started(notebook: Path, record: dict[str, Any]) -> dict[str, float]:
    """What a past run took beyond its parts, as papermill timed its notebook; nothing where that is not there."""
    try:
        took_s = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["papermill"]["duration"]
        return {"start_s": max(0.0, took_s - sum(record["seconds"].values()))}
    except (OSError, ValueError, KeyError, TypeError):  # none, a damaged one, one that has not ended
        return {}
