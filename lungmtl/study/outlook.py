"""Outlook: what a study would do now, why, and how long it takes, drawn as a tree with a timeline."""

from collections.abc import Mapping, Sequence

from lungmtl.study import plan
from lungmtl.study.condition import Condition, to_do
from lungmtl.study.config import RunConfig
from lungmtl.study.estimate import Pace, duration, pace, past_records
from lungmtl.study.runner import is_compared, is_prepared
from lungmtl.words import number_of

TIMELINE_WIDTH = 40


def draw(runs: Sequence[RunConfig], *, cores: int) -> str:
    """Draw the study as a tree, cohort -> preparation -> runs -> comparison, with the state of each; changes nothing.

    The timeline on the right shows when each run would be computed, with as many in parallel as `cores` allows.
    """
    first, waiting = runs[0], to_do(runs)
    slots = max(1, cores // first.threads)
    past = past_records(first)
    times = {plan.name_of(run): pace(run, past) for run in runs if plan.name_of(run) in waiting}
    lines = [f"study {first.study}: {len(waiting)} of {number_of(len(runs), 'run')} to do, {slots} at a time"]
    prepared = f"{'done' if is_prepared(first) else 'to do'}: {' x '.join(map(str, first.shape))} voxels"
    lines += [f"cohort        {_cohort(first)}", f"└─ prepare    {prepared}", "   └─ runs"]
    bars = _timeline(times, slots)
    width = max(len(plan.name_of(run)) for run in runs)
    for run in runs:
        name = plan.name_of(run)
        found = waiting.get(name, Condition("complete"))
        words = f"{found.kind}: {found.reason}" if found.reason else found.kind
        lines.append(f"      ├─ {name:{width}}  {bars.get(name, ''):{TIMELINE_WIDTH if bars else 0}}  {words}")
    done = "done" if not waiting and is_compared(runs) else "to do"
    return "\n".join([*lines, f"      └─ comparison  {done}", _total(times, slots)])


def _cohort(config: RunConfig) -> str:
    if plan.cohort_path(config).is_file():
        return "present"
    return "its table is missing" if config.cohort else f"to do: {len(config.phantom.splits)} phantom scans"


def _ends(times: Mapping[str, Pace], slots: int) -> dict[str, tuple[float, float]]:
    """Start and end of every run in seconds, each in the first free slot."""
    free, spans = [0.0] * slots, {}
    for name, found in times.items():
        slot = free.index(min(free))
        spans[name] = (free[slot], free[slot] + found.median_s)
        free[slot] = spans[name][1]
    return spans


def _timeline(times: Mapping[str, Pace | None], slots: int) -> dict[str, str]:
    if not times or None in times.values():
        return {}
    spans = _ends(times, slots)
    unit_s = max(end for _, end in spans.values()) / TIMELINE_WIDTH
    places = {name: (round(begin / unit_s), round(end / unit_s)) for name, (begin, end) in spans.items()}
    return {name: " " * begin + "#" * max(1, end - begin) for name, (begin, end) in places.items()}


def _total(times: Mapping[str, Pace | None], slots: int) -> str:
    if not times:
        return "There is nothing to train."
    if None in times.values():
        return "The training time is unknown: there is no past run on this grid."
    total_s = max(end for _, end in _ends(times, slots).values())
    shares = [(found.low_s / found.median_s, found.high_s / found.median_s) for found in times.values()]
    low_s, high_s = (total_s * sum(part) / len(part) for part in zip(*shares, strict=True))
    n_past = min(found.n_past for found in times.values())
    whose = f"fastest and slowest tenth of {number_of(n_past, 'past run')} of this grid"
    spread = f"{duration(low_s)} to {duration(high_s)}: {whose}"
    return f"The runs take about {duration(total_s)} with their start ({spread}, on whichever machine they ran)."
