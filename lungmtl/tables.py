"""Tables of the comparison: tidy frames of `records.collect` in, one tidy frame per table out.

Every run counts once, every table says how many scans and seeds stand behind a row and names its interval.
Where a split holds fewer than two scans of a class, the numbers that need them are NaN (blank in the csv).

Sources: Yang et al. 2020, Table 2 and abstract, arXiv 1912.07167 (the published AUCs and the order of experiments).
"""

import json
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungmtl import metrics

TABLE2 = ("STL", "MTL", "MTL0", "MTL1", "MTL2", "MTL3", "MTL4", "ITW1", "ITW2", "ITW3")  # the paper's order
PUBLISHED = (  # the paper's test AUCs of lung cancer; it does not say which row of Table 2 the last two belong to
    ("single task", 0.8080, ("STL",)),
    ("multi-task, weights not adaptive", 0.6720, ("MTL",)),
    ("multi-task with PFLP", 0.8402, ("MTL0", "MTL1", "MTL2", "MTL3", "MTL4")),
    ("multi-task with PFLP and ITW", 0.8462, ("ITW2", "ITW3")),
)
PUBLISHED_N = 592  # test scans of the paper, NLST and Vanderbilt
OWN_SETTINGS = ("study", "experiment", "seed", "results_dir", "cache_dir", "cohort", "threads")  # may differ anywhere
POLICY_SETTINGS = ("tasks", "weights", "pflp", "itw")  # these, and pflp_* and itw_*, tell experiments apart
ROC_POINTS = 101  # chosen by us: steps of 0.01 of the false positive rate
MIN_PER_CLASS = 2  # an interval needs two scans of each class
COUNTS = ("n", "positives", "unknown")
COMPARISON_COLUMNS = (
    *("experiment", "reference", "difference", "low", "high", "p", "p_holm", "interval"),
    *("experiment_only_right", "reference_only_right", "mcnemar_p", "mcnemar_p_holm", "n_family", "n_seeds", *COUNTS),
)


def check_comparable(runs: pd.DataFrame) -> None:
    """Refuse to compare runs of different cohorts or settings.

    Runs of one experiment may differ in their seed only, runs of different experiments in their policy too.

    Raises:
        ValueError: If runs differ otherwise; it names the setting, its values and the runs that have them.
    """
    _check_same(runs, "cohort_sha256", "The cohort table (its sha256)", "every run of a study")
    for column in [name for name in runs.columns if name.startswith("config_")]:
        setting = column.removeprefix("config_")
        if setting in OWN_SETTINGS:
            continue
        if setting.split("_")[0] in POLICY_SETTINGS:
            for experiment, group in runs.groupby("experiment", sort=False):
                _check_same(group, column, f"`{setting}`", f"every run of {experiment}")
        else:
            _check_same(runs, column, f"`{setting}`", "every run of a study")


def check_predictions(predictions: pd.DataFrame) -> None:
    """Refuse to pair predictions of different scans, targets or patients.

    Raises:
        ValueError: If runs differ in them; it names split, task, scan and a run.
    """
    for split in ("validation", "test"):
        without = set(predictions["run"]) - set(predictions.loc[predictions["split"] == split, "run"])
        if without:
            raise ValueError(f"Every run must predict {split} scans. Found none in {_listed(sorted(without))}.")
    place = ["split", "task", "scan"]
    n_runs = predictions.groupby("task")["run"].nunique()
    n_with = predictions.groupby(place)["run"].nunique()
    lacking = n_with[n_with < n_runs.reindex(n_with.index, level="task")]
    if len(lacking):
        split, task, scan = lacking.index[0]
        of_task = predictions[predictions["task"] == task]
        without = set(of_task["run"]) - set(of_task.loc[of_task["scan"] == scan, "run"])
        raise ValueError(
            f"Every run must predict the same scans. Found {len(lacking)} that not every run has, first {scan} of "
            f"{split}, {task}, not in {_listed(sorted(without))}."
        )
    for column in ("target", "patient"):
        n_values = predictions.groupby(place)[column].nunique(dropna=False)
        if n_values.max() > 1:
            split, task, scan = n_values.idxmax()
            raise ValueError(
                f"A scan must have the same {column} in every run. Found {(n_values > 1).sum()} that have not, first "
                f"{scan} of {split}, {task}."
            )


def missing_runs(
    runs: pd.DataFrame,
    predictions: pd.DataFrame,
    incomplete: Sequence[str],
    *,
    experiments: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> pd.DataFrame:
    """Runs that the comparison goes without, and why: columns run, reason.

    Args:
        runs: Complete runs.
        predictions: Predictions of them.
        incomplete: Names of run directories without a record.
        experiments: Expected experiments; empty = those found.
        seeds: Expected seeds; empty = those found.
    """
    expected = product(experiments or in_order(runs["experiment"]), seeds or sorted(runs["seed"].unique()))
    reasons = {f"{experiment}-s{seed}": "not there" for experiment, seed in expected}
    reasons |= dict.fromkeys(incomplete, "not complete: no record.json")
    reasons |= dict.fromkeys(runs["run"], "no predictions.csv")
    for run in predictions["run"].unique():
        reasons.pop(run, None)
    return pd.DataFrame(sorted(reasons.items()), columns=["run", "reason"])


def in_order(experiments: Sequence[str]) -> list[str]:
    """Different experiments, those of Table 2 first and in the paper's order, then others by name."""
    names = set(experiments)
    return [name for name in TABLE2 if name in names] + sorted(names - set(TABLE2))


class Scans(NamedTuple):
    """Labelled scans of one experiment and task, with one row of probabilities per seed (S, N)."""

    target: np.ndarray
    probability: np.ndarray
    patient: np.ndarray
    seeds: list[int]
    n_unknown: int

    @property
    def counts(self) -> dict[str, int]:
        """Labelled scans, positives among them, and scans without a label."""
        return {"n": len(self.target), "positives": int(self.target.sum()), "unknown": self.n_unknown}

    @property
    def has_both(self) -> bool:
        """Whether there are enough scans of both classes for an interval."""
        return min(np.sum(self.target == 1), np.sum(self.target == 0)) >= MIN_PER_CLASS

    @property
    def mean(self) -> np.ndarray:
        """Mean probability over seeds, (N,)."""
        return self.probability.mean(axis=0)

    def of(self, seeds: Sequence[int]) -> "Scans":
        """The same scans with the rows of these seeds only."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return self._replace(probability=self.probability[rows], seeds=list(seeds))


class Pair(NamedTuple):
    """Test and validation scans of two experiments, rows from the same seeds."""

    experiment: str
    reference: str
    test: tuple[Scans, Scans]
    validation: tuple[Scans, Scans]


def auc_table(predictions: pd.DataFrame, *, replicates: int, seed: int, split: str = "test") -> pd.DataFrame:
    """Mean AUC over seeds of every experiment and task, with the interval of `metrics.bootstrap_auc`.

    Returns:
        experiment, task, auc, low, high, interval, seed_sd (deviation of single runs; NaN with one), n_seeds, n,
        positives, unknown (scans of the split without a label).
    """
    rows = []
    for (experiment, task), scans in _scans(predictions, split).items():
        values = (np.nan, np.nan, np.nan)
        if scans.has_both:
            arrays = scans.target, scans.probability, scans.patient
            values = metrics.bootstrap_auc(*arrays, replicates=replicates, seed=seed)
        rows.append((experiment, task, *values, interval_name(len(scans.seeds)), _seed_sd(scans), len(scans.seeds)))
        rows[-1] += tuple(scans.counts.values())
    columns = ["experiment", "task", "auc", "low", "high", "interval", "seed_sd", "n_seeds"]
    return pd.DataFrame(rows, columns=[*columns, *COUNTS])


def interval_name(n_seeds: int) -> str:
    """What the interval of a mean over this many seeds covers."""
    return "95 % patient bootstrap" if n_seeds == 1 else "95 % seed and patient bootstrap"


def run_table(predictions: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Every metric of every run and task; sensitivity and specificity at the run's own validation threshold.

    Returns:
        experiment, seed, task, auc, low, high (95 % DeLong, logit scale), average_precision, brier,
        calibration_slope, calibration_intercept, sensitivity_at_90, sensitivity_at_95 (percent specificity),
        threshold, sensitivity, specificity, n, positives, unknown.
    """
    validation = _scans(predictions, "validation")
    rows = []
    for (experiment, task), scans in _scans(predictions, split).items():
        for seed in scans.seeds:
            one = scans.of([seed])
            place = {"experiment": experiment, "seed": seed, "task": task}
            threshold = _threshold(validation[experiment, task].of([seed]))
            rows.append(place | _scores(one) | _rates(one, threshold) | scans.counts)
    return pd.DataFrame(rows)


def comparison_table(
    predictions: pd.DataFrame, *, references: Sequence[str], task: str, replicates: int, seed: int
) -> pd.DataFrame:
    """Every experiment against every reference on the test scans of one task, over the seeds that both have.

    The AUC difference is paired by scan and by seed (`metrics.bootstrap_difference`). McNemar's test needs one
    decision per scan: the mean probability over those seeds, at the Youden threshold of the same mean on validation
    scans. Holm adjusts over all rows (n_family), each of the two tests for itself. Two references meet once.

    Returns:
        experiment, reference, difference, low, high, p, p_holm, interval, experiment_only_right,
        reference_only_right, mcnemar_p, mcnemar_p_holm, n_family, n_seeds, n, positives, unknown.
    """

    def test(a: Scans, b: Scans) -> metrics.Difference:
        arrays = a.target, a.probability, b.probability, a.patient
        return metrics.bootstrap_difference(*arrays, replicates=replicates, seed=seed)

    rows = [_comparison(pair, test) for pair in _pairs(predictions, references, task)]
    frame = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    return frame.assign(
        p_holm=_holm(frame["p"]), mcnemar_p_holm=_holm(frame["mcnemar_p"]), n_family=int(frame["p"].notna().sum())
    )


def seed_comparison_table(predictions: pd.DataFrame, *, references: Sequence[str], task: str) -> pd.DataFrame:
    """The same comparison seed by seed: paired DeLong, and exact McNemar at each run's own validation threshold.

    Every seed predicts the same scans, so the rows of a pair are not independent: no p value may be pooled.

    Returns:
        experiment, reference, seed, difference, low, high, p, interval, experiment_only_right,
        reference_only_right, mcnemar_p, n_seeds, n, positives, unknown.
    """

    def test(a: Scans, b: Scans) -> metrics.Difference:
        return metrics.compare_auc(a.target, a.probability[0], b.probability[0])

    rows = []
    for pair in _pairs(predictions, references, task):
        for seed in pair.test[0].seeds:
            sides = (tuple(scans.of([seed]) for scans in split) for split in (pair.test, pair.validation))
            one = Pair(pair.experiment, pair.reference, *sides)
            place = {"experiment": pair.experiment, "reference": pair.reference, "seed": seed}
            rows.append(place | _comparison(one, test) | {"interval": "95 % paired DeLong"})
    return pd.DataFrame(rows)


def roc_table(predictions: pd.DataFrame, *, task: str, split: str = "test") -> pd.DataFrame:
    """ROC curve of every run, on `ROC_POINTS` false positive rates: sensitivity by linear interpolation.

    Returns:
        experiment, seed, false_positive_rate, sensitivity.
    """
    grid = np.linspace(0, 1, ROC_POINTS)
    rows = [
        pd.DataFrame(
            {
                "experiment": experiment,
                "seed": seed,
                "false_positive_rate": grid,
                "sensitivity": metrics.roc_curve(scans.target, values, false_positive_rate=grid),
            }
        )
        for (experiment, of_task), scans in _scans(predictions, split).items()
        for seed, values in zip(scans.seeds, scans.probability, strict=True)
        if of_task == task and scans.has_both
    ]
    return pd.concat(rows, ignore_index=True)


def seconds_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Run time of every experiment: mean seconds over seeds, and the share of training.

    Returns:
        experiment, n_seeds, prepare, train, evaluate, total, total_min, total_max, train_share.
    """
    parts = ["prepare", "train", "evaluate"]
    seconds = runs[["experiment", *(f"seconds_{part}" for part in parts)]].set_axis(["experiment", *parts], axis=1)
    seconds = seconds.assign(total=seconds[parts].sum(axis=1))
    grouped = seconds.groupby("experiment")
    table = grouped.mean().assign(
        n_seeds=grouped.size(), total_min=grouped["total"].min(), total_max=grouped["total"].max()
    )
    table["train_share"] = table["train"] / table["total"]
    columns = ["n_seeds", *parts, "total", "total_min", "total_max", "train_share"]
    return table.loc[in_order(runs["experiment"]), columns].reset_index()


def published_table(aucs: pd.DataFrame, *, task: str) -> pd.DataFrame:
    """The paper's four AUCs beside the experiments of ours that each may belong to; two different cohorts.

    Returns:
        setting, experiment, paper_auc, paper_n, auc, low, high, interval, n_seeds, n.
    """
    columns = ["auc", "low", "high", "interval", "n_seeds", "n"]
    ours = aucs[aucs["task"] == task].set_index("experiment")[columns]
    rows = [(s, name, auc, PUBLISHED_N) for s, auc, experiments in PUBLISHED for name in experiments]
    paper = pd.DataFrame(rows, columns=["setting", "experiment", "paper_auc", "paper_n"])
    return paper.join(ours, on="experiment")


def format_table(aucs: pd.DataFrame) -> str:
    """The table of AUCs as text: a row per experiment, a column per task, mean [low, high].

    Args:
        aucs: As `auc_table` returns it, or its csv.
    """
    cells = [_cell(*values) for values in zip(aucs["auc"], aucs["low"], aucs["high"], strict=True)]
    wide = aucs.assign(cell=cells).pivot_table(index="experiment", columns="task", values="cell", aggfunc="first")
    wide = wide.loc[in_order(aucs["experiment"]), list(dict.fromkeys(aucs["task"]))].fillna("")
    wide.columns = [column.replace("_", " ") for column in wide.columns]
    seeds = sorted(set(aucs["n_seeds"]))
    n_seeds = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    notes = f"Test AUC [{' or '.join(sorted(set(aucs['interval'])))}], mean over {n_seeds} seed(s)."
    counts = aucs.drop_duplicates("task").itertuples()
    scans = "; ".join(f"{row.task.replace('_', ' ')} {row.n} ({row.positives} positive)" for row in counts)
    return f"{wide.reset_index().to_string(index=False)}\n{notes}\nScans: {scans}."


def summary(aucs: pd.DataFrame, comparisons: pd.DataFrame) -> str:
    """The result on the central task as a Markdown table: AUC, and the paired difference to each reference.

    Args:
        aucs: As `auc_table` returns it, or its csv; the first task is the central one.
        comparisons: As `comparison_table` returns it, or its csv.
    """
    references = list(dict.fromkeys(comparisons["reference"]))
    heads = [f"minus {reference}, Holm's p" for reference in references]
    lines = [f"| experiment | test AUC | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    pairs = comparisons.set_index(["experiment", "reference"])
    for row in aucs[aucs["task"] == aucs["task"].iloc[0]].itertuples():
        cells = [_difference_cell(pairs, row.experiment, reference) for reference in references]
        lines.append(f"| {row.experiment} | {_cell(row.auc, row.low, row.high)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference_cell(pairs: pd.DataFrame, experiment: str, reference: str) -> str:
    if (experiment, reference) not in pairs.index:
        return ""
    pair = pairs.loc[experiment, reference]
    return f"{pair['difference']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}], p {pair['p_holm']:.2g}"


def _comparison(pair: Pair, test: Callable[[Scans, Scans], metrics.Difference]) -> dict[str, object]:
    a, b = pair.test
    values = test(a, b) if a.has_both else (np.nan,) * 4
    thresholds = [_threshold(scans) for scans in pair.validation]
    errors = (np.nan,) * 3
    if not np.isnan(thresholds).any():
        errors = metrics.mcnemar_exact(a.target, a.mean >= thresholds[0], b.mean >= thresholds[1])
    return (
        {"experiment": pair.experiment, "reference": pair.reference}
        | dict(zip(("difference", "low", "high", "p"), values, strict=True))
        | {"interval": interval_name(len(a.seeds))}
        | dict(zip(("experiment_only_right", "reference_only_right", "mcnemar_p"), errors, strict=True))
        | {"n_seeds": len(a.seeds)}
        | a.counts
    )


def _pairs(predictions: pd.DataFrame, references: Sequence[str], task: str) -> list[Pair]:
    """Every experiment against every reference, without those that share no seed."""
    rows = predictions[predictions["task"] == task]
    test, validation = ({name: scans for (name, _), scans in _scans(rows, s).items()} for s in ("test", "validation"))
    pairs = []
    for reference in references:
        for name in test:
            met = any({name, reference} == {pair.experiment, pair.reference} for pair in pairs)
            if reference not in test or name == reference or met:
                continue
            seeds = [seed for seed in test[name].seeds if seed in test[reference].seeds]
            sides = (tuple(split[side].of(seeds) for side in (name, reference)) for split in (test, validation))
            if seeds:
                pairs.append(Pair(name, reference, *sides))
    return pairs


def _scans(predictions: pd.DataFrame, split: str) -> dict[tuple[str, str], Scans]:
    """Scans of every experiment and task of a split, in the paper's order."""
    rows = predictions[predictions["split"] == split]
    groups = dict(list(rows.groupby(["experiment", "task"])))
    places = product(in_order(rows["experiment"].unique()), rows["task"].unique())
    return {place: _of_group(groups[place]) for place in places if place in groups}


def _of_group(group: pd.DataFrame) -> Scans:
    wide = group.pivot(index="scan", columns="seed", values="probability")  # noqa: PD010 (it refuses duplicates)
    scans = group.drop_duplicates("scan").set_index("scan").loc[wide.index]
    known = scans["target"].notna().to_numpy()
    return Scans(
        target=scans["target"].to_numpy(dtype=float)[known],
        probability=wide.to_numpy(dtype=float).T[:, known],
        patient=scans["patient"].to_numpy()[known],
        seeds=[int(seed) for seed in wide.columns],
        n_unknown=int(np.sum(~known)),
    )


def _threshold(validation: Scans) -> float:
    """Youden threshold of the mean probability over seeds; NaN where the validation scans hold one class."""
    if len(np.unique(validation.target)) < 2:
        return np.nan
    return metrics.youden_threshold(validation.target, validation.mean)


def _scores(scans: Scans) -> dict[str, float]:
    """Metrics of one run; NaN where the test scans hold one class."""
    names = ("auc", "low", "high", "average_precision", "brier", "calibration_slope", "calibration_intercept")
    names += ("sensitivity_at_90", "sensitivity_at_95")
    if not scans.has_both:
        return dict.fromkeys(names, np.nan)
    arrays = scans.target, scans.probability[0]
    values = (*metrics.auc_interval(*arrays), metrics.average_precision(*arrays), metrics.brier(*arrays))
    is_fitted = values[0] not in (0.0, 1.0) and np.ptp(arrays[1]) > 0
    fit = metrics.calibration(*arrays) if is_fitted else None
    values += (fit.slope.value, fit.intercept.value) if fit else (np.nan, np.nan)
    values += tuple(metrics.sensitivity_at_specificity(*arrays, specificity=share) for share in (0.90, 0.95))
    return dict(zip(names, values, strict=True))


def _rates(scans: Scans, threshold: float) -> dict[str, float]:
    called = scans.mean >= threshold
    shares = np.nan, np.nan
    if scans.has_both and not np.isnan(threshold):
        shares = called[scans.target == 1].mean(), 1 - called[scans.target == 0].mean()
    return {"threshold": threshold, "sensitivity": shares[0], "specificity": shares[1]}


def _seed_sd(scans: Scans) -> float:
    if not scans.has_both or len(scans.seeds) == 1:
        return np.nan
    return float(np.std([metrics.auc(scans.target, values) for values in scans.probability], ddof=1))


def _holm(p_values: pd.Series) -> pd.Series:
    known = p_values.dropna()
    return pd.Series(metrics.holm(known.to_numpy(float)), index=known.index).reindex(p_values.index)


def _cell(auc: float, low: float, high: float) -> str:
    return "one class only" if np.isnan(auc) else f"{auc:.2f} [{low:.2f}, {high:.2f}]"


def _check_same(runs: pd.DataFrame, column: str, what: str, where: str) -> None:
    values = runs[column].map(lambda value: json.dumps(value, default=str))
    kinds = values.unique()
    if len(kinds) > 1:
        found = "; ".join(f"{kind} in {_listed(list(runs.loc[values == kind, 'run']))}" for kind in kinds)
        raise ValueError(f"{what} must be the same in {where}. Found {found}.")


def _listed(names: Sequence[str], *, limit: int = 6) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
