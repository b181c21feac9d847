"""Tables of the comparison: tidy frames of `records.collect` in, one tidy frame per table out.

Every run counts once, every table says how many scans and seeds stand behind a row and names its interval.
Where a split holds fewer than two patients of a class, the numbers that need them are NaN (blank in the csv).

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
MIN_PER_CLASS = 2  # an interval needs two patients with a positive scan and two without
COUNTS = ("n", "positives", "unknown")
SPLITS = ("validation", "test")  # what a run predicts
COMPARISON_COLUMNS = (
    *("experiment", "reference", "difference", "low", "high", "p", "p_holm", "interval"),
    *("error", "freedom", "low_90", "high_90", "equivalence_p", "equivalence_p_holm", "margin"),
    *("experiment_only_right", "reference_only_right", "mcnemar_p", "mcnemar_p_holm", "n_family", "n_seeds", *COUNTS),
)
ENSEMBLE_COMPARISON_COLUMNS = (
    *("experiment", "reference", "difference", "low", "high", "p", "p_holm", "interval"),
    *("n_family", "n_seeds", *COUNTS),
)
MARGIN = 0.02  # chosen by us: an AUC difference too small to matter; what the paper's test set can just resolve
POWER_SIZES = (100, 200, 400, 592, 1000, 2000, 4000, 10000)  # test scans
FEWER = 400  # chosen by us: replicates where many intervals are wanted; their deviation has an error of 3.5 %
MAX_KINDS = 5  # chosen by us: a numeric attribute with no more different values is a label, not a measurement


class Screened(NamedTuple):
    """What can be compared, and what cannot: `problems` has columns run ("" = no single run), problem."""

    runs: pd.DataFrame
    predictions: pd.DataFrame
    problems: pd.DataFrame


def screen(
    runs: pd.DataFrame, predictions: pd.DataFrame, *, experiments: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Screened:
    """Leave out what cannot be compared, and name it.

    A run goes if it lacks predictions of a split or task, has a probability that is none, or differs from most
    runs in its cohort, a setting that must be shared, its scans, targets or patients. Then every experiment
    keeps the seeds that all have, so that means over seeds are over the same ones. A task with too few scans of a class
    stays, with blank numbers, and is named.

    Args:
        runs: Complete runs, as `records.collect` returns them.
        predictions: Predictions of them.
        experiments: Expected experiments, others are not looked at; empty = those found.
        seeds: Expected seeds; empty = those found.
    Raises:
        ValueError: If no value of a shared setting, or no set of scans, is that of more than half of the runs; or
            if nothing is left.
    """
    expected = list(experiments) or in_order(runs["experiment"])
    wanted = sorted(seeds or runs["seed"].unique())
    runs = runs[runs["experiment"].isin(expected) & runs["seed"].isin(wanted)]
    predictions = predictions[predictions["run"].isin(runs["run"])]
    problems: list[tuple[str, str]] = []
    for check in (_run_without_predictions, _run_with_bad_values, _run_with_other_settings, _run_with_other_scans):
        found = check(runs, predictions)
        problems += found.items()
        runs = runs[~runs["run"].isin(found)]
        predictions = predictions[predictions["run"].isin(runs["run"])]
    kept, of_seeds = _common_seeds(runs, expected, wanted)
    problems += of_seeds
    runs = runs[runs["run"].isin(kept)]
    predictions = predictions[predictions["run"].isin(kept)]
    if runs.empty:
        listed = " ".join(f"{run or 'all'}: {problem}" for run, problem in problems)
        raise ValueError(f"A comparison must have a run that can be compared. Found none. {listed}")
    problems += _tasks_with_one_class(predictions)
    return Screened(runs, predictions, pd.DataFrame(problems, columns=["run", "problem"]))


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
    """Different experiments, those of Table 2 first and in the paper's order, then others by name.

    A variant (`ITW2.start0.5`) comes right behind its base (`ITW2`).
    """

    def place(name: str) -> tuple[int, str, str]:
        base = base_of(name)
        return (TABLE2.index(base) if base in TABLE2 else len(TABLE2), base, name)

    return sorted(set(experiments), key=place)


def base_of(experiment: str) -> str:
    """Experiment that a variant is made from: `ITW2` of `ITW2.start0.5`."""
    return experiment.partition(".")[0]


class Scans(NamedTuple):
    """Labelled scans of one experiment and task, with one row of probabilities per seed (S, N)."""

    target: np.ndarray
    probability: np.ndarray
    patient: np.ndarray
    scan: np.ndarray
    seeds: list[int]
    n_unknown: int
    areas: metrics.Areas | None = None  # where they are bootstrapped

    @property
    def counts(self) -> dict[str, int]:
        """Labelled scans, positives among them, and scans without a label."""
        return {"n": len(self.target), "positives": int(self.target.sum()), "unknown": self.n_unknown}

    @property
    def has_both(self) -> bool:
        """Whether there are enough patients with and without a positive scan for an interval."""
        with_positive = set(self.patient[self.target == 1])
        return min(len(with_positive), len(set(self.patient) - with_positive)) >= MIN_PER_CLASS

    @property
    def mean(self) -> np.ndarray:
        """Mean probability over seeds, (N,)."""
        return self.probability.mean(axis=0)

    def of(self, seeds: Sequence[int]) -> "Scans":
        """The same scans with the rows of these seeds only."""
        rows = [self.seeds.index(seed) for seed in seeds]
        areas = self.areas and self.areas.of(rows)
        return self._replace(probability=self.probability[rows], seeds=list(seeds), areas=areas)

    def among(self, scans: Sequence[str]) -> "Scans":
        """Those of these scans that are labelled; none of them counts as unknown."""
        inside = pd.Index(self.scan).isin(scans)
        arrays = {name: getattr(self, name)[inside] for name in ("target", "patient", "scan")}
        return self._replace(**arrays, probability=self.probability[:, inside], n_unknown=0, areas=None)

    @property
    def ensemble(self) -> "Scans":
        """One predictor, the mean probability over seeds, in place of the runs."""
        return self._replace(probability=self.mean[None], seeds=[0], areas=None)


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
    for (experiment, task), scans in _bootstrapped(_scans(predictions, split), replicates, seed).items():
        rows.append((experiment, task, *_mean_auc(scans), interval_name(len(scans.seeds)), _seed_sd(scans)))
        rows[-1] += (len(scans.seeds), *scans.counts.values())
    columns = ["experiment", "task", "auc", "low", "high", "interval", "seed_sd", "n_seeds"]
    return pd.DataFrame(rows, columns=[*columns, *COUNTS])


def interval_name(n_seeds: int) -> str:
    """What the interval of a mean over this many seeds covers."""
    return "95 % patient bootstrap" if n_seeds == 1 else "95 % patient bootstrap and seed variance"


def ensemble_table(predictions: pd.DataFrame, *, task: str, replicates: int, seed: int) -> pd.DataFrame:
    """AUC of the mean probability over seeds, beside the mean AUC of single runs.

    The ensemble is one predictor, so its interval is over patients only: another ensemble of as many seeds would
    differ, and nothing here says how much.

    Returns:
        experiment, auc, low, high, interval, mean_auc (of single runs), n_seeds, n, positives, unknown.
    """
    groups = _of_task(predictions, "test", task)
    ensembles = _bootstrapped({name: scans.ensemble for name, scans in groups.items()}, replicates, seed)
    rows = [
        (name, *_mean_auc(ensembles[name]), interval_name(1), _mean_of_runs(scans), len(scans.seeds), *counts)
        for name, scans in groups.items()
        for counts in [scans.counts.values()]
    ]
    columns = ["experiment", "auc", "low", "high", "interval", "mean_auc", "n_seeds", *COUNTS]
    return pd.DataFrame(rows, columns=columns)


def ensemble_comparison_table(predictions: pd.DataFrame, *, references: Sequence[str], task: str) -> pd.DataFrame:
    """Ensembles of every experiment against those of every reference: paired DeLong, Holm over all rows.

    Returns:
        experiment, reference, difference, low, high, p, p_holm, interval, n_family, n_seeds, n, positives, unknown.
    """
    rows = []
    for pair in _pairs(predictions, references, task):
        a, b = pair.test
        values = _blank_difference()
        if a.has_both:
            values = metrics.compare_auc(a.target, a.mean, b.mean)
        rows.append(
            {"experiment": pair.experiment, "reference": pair.reference}
            | values._asdict()
            | {"interval": "95 % paired DeLong", "n_seeds": len(a.seeds)}
            | a.counts
        )
    return _with_family(rows, ENSEMBLE_COMPARISON_COLUMNS)


def run_table(predictions: pd.DataFrame, *, replicates: int, seed: int, split: str = "test") -> pd.DataFrame:
    """Every metric of every run and task; sensitivity and specificity at the run's own validation threshold.

    Intervals are 95 %: AUC `low`, `high` DeLong on the logit scale; `bootstrap_*`, average precision and
    `sensitivity_at_*` stratified patient bootstrap, one set of draws for all (no more than `FEWER` replicates); Brier
    score over patients; calibration cluster-robust; sensitivity and specificity at the threshold Wilson, the
    threshold taken as given.

    Returns:
        experiment, seed, task, auc, low, high, bootstrap_low, bootstrap_high; then each with _low and _high:
        average_precision, brier, calibration_slope, calibration_intercept, sensitivity_at_90, sensitivity_at_95
        (percent specificity); threshold; sensitivity and specificity, each with _low and _high; n, positives, unknown.
    """
    validation = _scans(predictions, "validation")
    weights = Weights(min(replicates, FEWER), seed)
    rows = []
    for (experiment, task), scans in _scans(predictions, split).items():
        for run_seed in scans.seeds:
            one = scans.of([run_seed])
            place = {"experiment": experiment, "seed": run_seed, "task": task}
            threshold = _threshold(validation[experiment, task].of([run_seed]))
            rows.append(place | _scores(one, weights) | _rates(one, threshold) | scans.counts)
    return pd.DataFrame(rows)


def comparison_table(
    predictions: pd.DataFrame,
    *,
    references: Sequence[str],
    task: str,
    replicates: int,
    seed: int,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """Every experiment against every reference on the test scans of one task, over the seeds that both have.

    The AUC difference is paired by scan and by seed (`metrics.bootstrap_difference`). McNemar's test needs one
    decision per scan: the mean probability over those seeds, at the Youden threshold of the same mean on validation
    scans. Equivalence is tested too (`metrics.equivalence`): a pair may turn out different, equivalent, both (a
    difference that is there but small) or neither (too few scans or seeds to tell). Holm adjusts over all rows
    (n_family), each of the three tests for itself. Two references meet once.

    Returns:
        experiment, reference, difference, low, high, p, p_holm, interval, error, freedom, low_90, high_90 (90 %, which
        lies inside the margin exactly where equivalence_p is below 5 %), equivalence_p, equivalence_p_holm, margin,
        experiment_only_right, reference_only_right, mcnemar_p, mcnemar_p_holm, n_family, n_seeds, n, positives,
        unknown.
    """

    def test(a: Scans, b: Scans) -> metrics.Difference:
        return metrics.mean_difference(a.areas, b.areas)

    pairs = _pairs(predictions, references, task, bootstrap=(replicates, seed))
    rows = [_comparison(pair, test) | _equivalence(pair, test, margin) for pair in pairs]
    return _with_family(rows, COMPARISON_COLUMNS)


def variance_table(
    predictions: pd.DataFrame, *, references: Sequence[str], task: str, replicates: int, seed: int
) -> pd.DataFrame:
    """Variance of the mean over seeds, of each AUC and each difference: the part of seeds and the part of test scans.

    `metrics.variance_parts` with the covariance of the patient bootstrap. `seed_variance` is what more seeds would
    remove: the raw variance between seeds over their number. All seeds share their test scans, so it holds
    no luck that seeds share; it does hold the luck that each seed has alone with these scans, `interaction_variance`
    (a part of `seed_variance`, which more scans would remove as well). `patient_variance` is what remains with any
    number of seeds. With one seed only the sum of `patient_variance` and interaction can be told.

    Returns:
        experiment, reference ("" = the AUC itself), value, seed_variance, patient_variance, total_variance (their
        sum), seed_share (of the total), interaction_variance, seed_sd (deviation between single runs), patient_sd (of
        the mean, root of patient_variance), n_seeds, n.
    """
    groups = _bootstrapped(_of_task(predictions, "test", task), replicates, seed)
    rows = [{"experiment": name, "reference": ""} | _variance(scans, scans.areas) for name, scans in groups.items()]
    for pair in _pairs(predictions, references, task, groups=groups):
        a, b = pair.test
        areas = a.areas and metrics.Areas(a.areas.value - b.areas.value, a.areas.draws - b.areas.draws)
        rows.append({"experiment": pair.experiment, "reference": pair.reference} | _variance(a, areas))
    return pd.DataFrame(rows)


def power_table(
    predictions: pd.DataFrame,
    *,
    references: Sequence[str],
    task: str,
    sizes: Sequence[int] = POWER_SIZES,
    published_n: int = PUBLISHED_N,
) -> pd.DataFrame:
    """Smallest true AUC difference that a paired two-sided 5 % test finds with 80 % power, by number of test scans.

    Taken from this study: prevalence, and DeLong's variance and correlation of the two predictors, scaled as 1 / n. The
    paper gives neither its prevalence nor the correlation of its predictions, so its row (`paper's n`) says what its
    592 scans could show if both were as here; a larger correlation would show smaller differences.

    Rows with n_seeds 1 compare one trained network with one other (the paper's case; mean variance over this study's
    pairs of runs): they hold for these two networks, not for their policies. Rows with n_seeds above 1 compare policies
    by the mean over this study's seeds: variance between seeds does not shrink with scans, so the curve levels off.

    Returns:
        experiment, reference, n, positives (expected), detectable, error, freedom, correlation (of the two AUCs),
        n_seeds, source ("this study" | "paper's n").
    """
    rows = []
    for pair in _pairs(predictions, references, task):
        if pair.test[0].has_both:
            rows += _power_rows(pair, sizes, published_n)
    columns = ["experiment", "reference", "n", "positives", "detectable", "error", "freedom", "correlation"]
    return pd.DataFrame(rows, columns=[*columns, "n_seeds", "source"])


def subgroup_table(
    predictions: pd.DataFrame,
    attributes: pd.DataFrame,
    *,
    references: Sequence[str],
    task: str,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    """AUC and differences in subgroups of the test scans: exploratory, so without p values.

    Many subgroups are looked at and none was planned for: some intervals exclude 0 by chance alone, and two
    subgroups differ only where the interval of their difference says so, which is not computed.

    Args:
        predictions: Every other task known for a scan makes subgroups too (yes, no).
        attributes: `scan` and any further columns. A numeric column is cut at its median over the test scans that
            have a value; with no more than `MAX_KINDS` values, as text and booleans, it is taken as it is. What
            only positives have (a nodule's diameter) splits the positives, each part against all negatives.
        references: Experiments to compare with.
        task: The task whose AUC it is.
        replicates: Number of bootstrap replicates; no more than `FEWER` are drawn.
        seed: Seeds the draws.
    Returns:
        attribute, subgroup, experiment, reference ("" = the AUC itself), value, low, high, interval, n_seeds, n,
        positives. Values of a subgroup with fewer than two patients of a class are NaN.
    """
    groups = _of_task(predictions, "test", task)
    rows = []
    for attribute, subgroup, names in _subgroups(predictions, attributes, task):
        members = {name: scans.among(names) for name, scans in groups.items()}
        inside = _bootstrapped(members, min(replicates, FEWER), seed)
        place = {"attribute": attribute, "subgroup": subgroup}
        rows += [place | row for row in _values(inside, references)]
    columns = ["attribute", "subgroup", "experiment", "reference", "value", "low", "high", "interval"]
    return pd.DataFrame(rows, columns=[*columns, "n_seeds", "n", "positives"])


def reliability_table(predictions: pd.DataFrame, *, task: str, split: str = "test") -> pd.DataFrame:
    """Reliability curve of every experiment: share of positives by predicted probability, in ten bins of equal count.

    The predictions of all seeds are pooled (`metrics.reliability`), because a single network is what is calibrated or
    not; the mean over seeds is another predictor, less extreme. The band counts patients, not predictions.

    Returns:
        experiment, predicted (mean of the bin), observed, low, high (95 % Wilson), n (different scans in the bin),
        n_effective (what the band takes for independent patients), n_seeds.
    """
    rows = [
        {"experiment": name, **found._asdict(), "n_seeds": len(scans.seeds)}
        for name, scans in _of_task(predictions, split, task).items()
        if scans.has_both
        for found in metrics.reliability(scans.target, scans.probability, scans.patient)
    ]
    columns = ["experiment", "predicted", "observed", "low", "high", "n", "n_effective", "n_seeds"]
    return pd.DataFrame(rows, columns=columns)


def selected_table(
    predictions: pd.DataFrame, *, references: Sequence[str], task: str, replicates: int, seed: int
) -> pd.DataFrame:
    """The best variant of every experiment, chosen on validation scans, and what it does on test scans.

    `BASE.change` (e.g. `ITW2.start0.5`) is a variant of `BASE`. Of a group of at least two, the member with the
    highest mean validation AUC over seeds is taken (the first of equals). Test scans have no part in the choice, so
    intervals are what they say for the chosen one; how far another choice would have gone is not in them.

    Returns:
        group, experiment (the chosen), validation_auc, test_auc, low, high, reference, difference, difference_low,
        difference_high, p, p_holm (over all rows), interval, n_candidates, n_seeds. One row per group and
        reference; reference "" where the chosen is the only one.
    """
    validation = _of_task(predictions, "validation", task)
    test = _bootstrapped(_of_task(predictions, "test", task), replicates, seed)
    rows = []
    for base in dict.fromkeys(map(base_of, test)):
        members = [name for name in test if base_of(name) == base]
        if len(members) > 1:
            rows += _selected_rows(base, members, validation, test, references)
    columns = ["group", "experiment", "validation_auc", "test_auc", "low", "high", "reference", "difference"]
    columns += ["difference_low", "difference_high", "p", "p_holm", "interval", "n_candidates", "n_seeds"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(p_holm=_holm(frame["p"]))


def seed_comparison_table(predictions: pd.DataFrame, *, references: Sequence[str], task: str) -> pd.DataFrame:
    """The same comparison seed by seed: paired DeLong, and exact McNemar at each run's own validation threshold.

    Every seed predicts the same scans, so the rows of a pair are not independent: no p value may be pooled.

    Returns:
        experiment, reference, seed, difference, low, high, p, error, freedom, interval, experiment_only_right,
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
    curves = [pd.DataFrame(columns=["experiment", "seed", "false_positive_rate", "sensitivity"])]
    for experiment, scans in _of_task(predictions, split, task).items():
        for seed, values in zip(scans.seeds, scans.probability, strict=True) if scans.has_both else []:
            sensitivity = metrics.roc_curve(scans.target, values, false_positive_rate=grid)
            curves.append(pd.DataFrame({"experiment": experiment, "seed": seed, "false_positive_rate": grid}))
            curves[-1]["sensitivity"] = sensitivity
    return pd.concat(curves[1:] or curves, ignore_index=True)


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


def _mean_auc(scans: Scans) -> metrics.Interval:
    if not scans.has_both:
        return metrics.Interval(np.nan, np.nan, np.nan)
    return metrics.mean_auc(scans.target, scans.areas)


def _mean_of_runs(scans: Scans) -> float:
    """Mean AUC of single runs; NaN where the scans hold one class."""
    if len(np.unique(scans.target)) < 2:
        return np.nan
    return float(np.mean([metrics.auc(scans.target, values) for values in scans.probability]))


def _blank_difference() -> metrics.Difference:
    return metrics.Difference(*(np.nan,) * len(metrics.Difference._fields))


def _with_family(rows: list[dict[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a frame with these columns; Holm over all of them, for every kind of p value that the columns name."""
    frame = pd.DataFrame(rows, columns=list(columns))
    adjusted = [column for column in columns if column.endswith("p_holm")]
    frame = frame.assign(**{column: _holm(frame[column.removesuffix("_holm")]) for column in adjusted})
    return frame.assign(n_family=int(frame["p"].notna().sum()))


def _equivalence(pair: Pair, test: Callable[[Scans, Scans], metrics.Difference], margin: float) -> dict[str, float]:
    if not pair.test[0].has_both:
        return dict.fromkeys(("low_90", "high_90", "equivalence_p"), np.nan) | {"margin": margin}
    found = test(*pair.test)
    inner = metrics.difference_interval(found, level=0.90)
    p = metrics.equivalence(found, margin=margin)
    return {"low_90": inner.low, "high_90": inner.high, "equivalence_p": p, "margin": margin}


def _variance(scans: Scans, areas: metrics.Areas | None) -> dict[str, float]:
    names = ("value", "seed_variance", "patient_variance", "total_variance", "seed_share", "interaction_variance")
    row = dict.fromkeys((*names, "seed_sd", "patient_sd"), np.nan) | {
        "n_seeds": len(scans.seeds),
        "n": scans.counts["n"],
    }
    if areas is None:
        return row
    row["value"] = float(areas.value.mean())
    if len(scans.seeds) == 1:
        patients = float(areas.draws[0].var(ddof=1))
        return row | {"patient_variance": patients, "patient_sd": float(np.sqrt(patients))}
    parts = metrics.variance_parts(areas.value, np.cov(areas.draws))
    total = parts.seeds + parts.patients
    return row | {
        "seed_variance": parts.seeds,
        "patient_variance": parts.patients,
        "total_variance": total,
        "seed_share": parts.seeds / total if total else np.nan,
        "interaction_variance": parts.interaction,
        "seed_sd": float(areas.value.std(ddof=1)),
        "patient_sd": float(np.sqrt(parts.patients)),
    }


def _power_rows(pair: Pair, sizes: Sequence[int], published_n: int) -> list[dict[str, object]]:
    a, b = pair.test
    n_seeds, n_scans = len(a.seeds), len(a.target)
    areas, covariance = metrics.delong_covariance(a.target, np.vstack([a.probability, b.probability]))
    contrast = np.hstack([np.eye(n_seeds), -np.eye(n_seeds)])  # (S, 2 S)
    of_differences = contrast @ covariance @ contrast.T  # (S, S)
    row = {"experiment": pair.experiment, "reference": pair.reference}
    row["correlation"] = _correlation(covariance, n_seeds)
    rows = []
    for n, source in [*((n, "this study") for n in sorted({*sizes, n_scans})), (published_n, "paper's n")]:
        factor = n / n_scans
        kinds = [(1, float(np.trace(of_differences)) / n_seeds / factor, np.inf)]
        if n_seeds > 1:
            parts = metrics.variance_parts(contrast @ areas, of_differences).with_scans(factor)
            kinds.append((n_seeds, parts.total, parts.freedom))
        for of_seeds, variance, freedom in kinds:
            found = {"n": n, "positives": float(a.target.mean() * n), "n_seeds": of_seeds, "source": source}
            found |= {"error": float(np.sqrt(variance)), "freedom": freedom}
            found["detectable"] = float(metrics.detectable_difference(found["error"], freedom=freedom))
            rows.append(row | found)
    return rows


def _correlation(covariance: np.ndarray, n_seeds: int) -> float:
    """Mean correlation of the AUCs of a and b of the same seed; NaN where one has no variance."""
    variances = np.diag(covariance)
    products = variances[:n_seeds] * variances[n_seeds:]
    if products.min() < metrics.MIN_ERROR**4:
        return np.nan
    return float(np.mean(np.diag(covariance, k=n_seeds) / np.sqrt(products)))


def _subgroups(predictions: pd.DataFrame, attributes: pd.DataFrame, task: str) -> list[tuple[str, str, list[str]]]:
    """Attribute, subgroup and the scans in it."""
    test = predictions[predictions["split"] == "test"].drop_duplicates(["scan", "task"])
    targets = test.pivot(index="scan", columns="task", values="target")  # noqa: PD010 (it refuses duplicates)
    known = targets[task].dropna()
    names = attributes["scan"]
    if names.duplicated().any():
        raise ValueError(f"`attributes` must have one row per scan. Found two of {names[names.duplicated()].iloc[0]}.")
    table = attributes.set_index("scan").reindex(known.index)
    found = []
    for attribute in table.columns:
        values = table[attribute].dropna()
        kinds = _kinds(values)
        only_positives = len(values) > 0 and known[values.index].eq(1).all() and known.ne(1).any()
        negatives = list(known.index[known == 0]) if only_positives else []
        ending = ", against all negatives" if only_positives else ""
        found += [(attribute, f"{kind}{ending}", [*values.index[kinds == kind], *negatives]) for kind in _unique(kinds)]
    for other in [name for name in predictions["task"].unique() if name != task]:
        answers = targets.loc[known.index, other].dropna().map({1.0: "yes", 0.0: "no"})
        found += [(other, answer, list(answers.index[answers == answer])) for answer in ("yes", "no")]
    return found


def _kinds(values: pd.Series) -> pd.Series:
    """The subgroup of every value, as text."""
    values = values.infer_objects()  # booleans beside blanks were read as objects
    if pd.api.types.is_bool_dtype(values):
        return values.map({True: "yes", False: "no"})
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= MAX_KINDS:
        return values.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
    middle = values.median()
    return (values <= middle).map({True: f"at most {middle:.3g}", False: f"above {middle:.3g}"})


def _unique(kinds: pd.Series) -> list[str]:
    return sorted(kinds.unique(), key=lambda kind: (kind.startswith("above"), kind))


def _values(groups: dict[str, Scans], references: Sequence[str]) -> list[dict[str, object]]:
    """Mean AUC of every experiment, then its difference to every reference."""
    rows = []
    for name, scans in groups.items():
        rows.append((name, "", *_mean_auc(scans), scans))
    for pair in _pairs_of(groups, groups, references):
        a, b = pair.test
        found = metrics.mean_difference(a.areas, b.areas) if a.has_both else _blank_difference()
        rows.append((pair.experiment, pair.reference, found.difference, found.low, found.high, a))
    return [
        dict(zip(("experiment", "reference", "value", "low", "high"), row, strict=True))
        | {"interval": interval_name(len(scans.seeds)), "n_seeds": len(scans.seeds)}
        | {count: scans.counts[count] for count in ("n", "positives")}
        for *row, scans in rows
    ]


def _selected_rows(
    base: str,
    members: list[str],
    validation: dict[str, Scans],
    test: dict[str, Scans],
    references: Sequence[str],
) -> list[dict[str, object]]:
    areas = {name: _mean_of_runs(validation[name]) for name in members}
    chosen = max(members, key=lambda name: np.nan_to_num(areas[name], nan=-1.0))  # the first of equals
    found = _mean_auc(test[chosen])
    row = {"group": base, "experiment": chosen, "validation_auc": areas[chosen], "test_auc": found.value}
    row |= {"low": found.low, "high": found.high, "reference": "", "n_candidates": len(members)}
    row |= {"interval": interval_name(len(test[chosen].seeds)), "n_seeds": len(test[chosen].seeds)}
    rows = []
    for reference in [name for name in references if name in test and name != chosen]:
        seeds = [seed for seed in test[chosen].seeds if seed in test[reference].seeds]
        a, b = (test[name].of(seeds) for name in (chosen, reference))
        values = metrics.mean_difference(a.areas, b.areas) if seeds and a.has_both else _blank_difference()
        names = ("difference", "difference_low", "difference_high", "p")
        rows.append(row | {"reference": reference, "n_seeds": len(seeds)} | dict(zip(names, values[:4], strict=True)))
    return rows or [row]


def _comparison(pair: Pair, test: Callable[[Scans, Scans], metrics.Difference]) -> dict[str, object]:
    a, b = pair.test
    values = test(a, b) if a.has_both else _blank_difference()
    thresholds = [_threshold(scans) for scans in pair.validation]
    errors = (np.nan,) * 3
    if not np.isnan(thresholds).any():
        errors = metrics.mcnemar_exact(a.target, a.mean >= thresholds[0], b.mean >= thresholds[1])
    return (
        {"experiment": pair.experiment, "reference": pair.reference}
        | values._asdict()
        | {"interval": interval_name(len(a.seeds))}
        | dict(zip(("experiment_only_right", "reference_only_right", "mcnemar_p"), errors, strict=True))
        | {"n_seeds": len(a.seeds)}
        | a.counts
    )


def _pairs(
    predictions: pd.DataFrame,
    references: Sequence[str],
    task: str,
    *,
    bootstrap: tuple[int, int] | None = None,
    groups: dict[str, Scans] | None = None,
) -> list[Pair]:
    """Every experiment against every reference; `bootstrap`: replicates and seed, `groups`: test scans made before."""
    test = groups or _of_task(predictions, "test", task)
    if bootstrap:
        test = _bootstrapped(test, *bootstrap)
    return _pairs_of(test, _of_task(predictions, "validation", task), references)


def _pairs_of(test: dict[str, Scans], validation: dict[str, Scans], references: Sequence[str]) -> list[Pair]:
    """Every experiment against every reference, without those that share no seed."""
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


class Weights:
    """How often every scan is drawn in every replicate, made once for all groups of the same scans."""

    def __init__(self, replicates: int, seed: int) -> None:
        self.replicates, self.seed = replicates, seed
        self._made: dict[tuple[bytes, tuple[str, ...]], np.ndarray] = {}

    def of(self, scans: Scans) -> np.ndarray:
        """(N, R) for these scans."""
        key = (scans.target.tobytes(), tuple(scans.patient))
        if key not in self._made:
            self._made[key] = metrics.patient_weights(
                scans.target, scans.patient, replicates=self.replicates, seed=self.seed
            )
        return self._made[key]


def _bootstrapped(groups: dict, replicates: int, seed: int) -> dict:
    """The same groups with `areas` where there are scans of both classes."""
    weights = Weights(replicates, seed)

    def areas(scans: Scans) -> metrics.Areas | None:
        if not scans.has_both:
            return None
        return metrics.bootstrap_areas(scans.target, scans.probability, weights.of(scans))

    return {place: scans._replace(areas=areas(scans)) for place, scans in groups.items()}


def _of_task(predictions: pd.DataFrame, split: str, task: str) -> dict[str, Scans]:
    """Scans of every experiment that has this task."""
    groups = _scans(predictions[predictions["task"] == task], split)
    return {experiment: scans for (experiment, _), scans in groups.items()}


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
        scan=scans.index.to_numpy()[known],
        seeds=[int(seed) for seed in wide.columns],
        n_unknown=int(np.sum(~known)),
    )


def _threshold(validation: Scans) -> float:
    """Youden threshold of the mean probability over seeds; NaN where the validation scans hold one class."""
    if len(np.unique(validation.target)) < 2:
        return np.nan
    return metrics.youden_threshold(validation.target, validation.mean)


def _scores(scans: Scans, weights: Weights) -> dict[str, float]:
    """Metrics of one run; NaN where the test scans hold one class."""
    values = {"auc": np.nan, "low": np.nan, "high": np.nan, "bootstrap_low": np.nan, "bootstrap_high": np.nan}
    calibration = ("calibration_slope", "calibration_intercept")
    for name in ("average_precision", "brier", *calibration, "sensitivity_at_90", "sensitivity_at_95"):
        values |= _named(name, (np.nan,) * 3)
    if not scans.has_both:
        return values
    arrays = scans.target, scans.probability[0]
    found = metrics.run_scores(*arrays, scans.patient, weights.of(scans))._asdict()
    bootstrap = found.pop("auc")
    values |= dict(zip(("auc", "low", "high"), metrics.auc_interval(*arrays), strict=True))
    values |= {"bootstrap_low": bootstrap.low, "bootstrap_high": bootstrap.high}
    for name, interval in found.items():
        values |= _named(name, interval)
    if values["auc"] not in (0.0, 1.0) and np.ptp(arrays[1]) > 0:
        for name, interval in zip(calibration, metrics.calibration(*arrays, scans.patient), strict=True):
            values |= _named(name, interval)
    return values


def _named(name: str, interval: Sequence[float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


def _rates(scans: Scans, threshold: float) -> dict[str, float]:
    called = scans.mean >= threshold
    shares = [(np.nan,) * 3] * 2
    if scans.has_both and not np.isnan(threshold):
        right = called[scans.target == 1], ~called[scans.target == 0]
        shares = [metrics.rate(int(side.sum()), len(side)) for side in right]
    return {"threshold": threshold} | _named("sensitivity", shares[0]) | _named("specificity", shares[1])


def _seed_sd(scans: Scans) -> float:
    if not scans.has_both or len(scans.seeds) == 1:
        return np.nan
    return float(np.std([metrics.auc(scans.target, values) for values in scans.probability], ddof=1))


def _holm(p_values: pd.Series) -> pd.Series:
    known = p_values.dropna()
    return pd.Series(metrics.holm(known.to_numpy(float)), index=known.index).reindex(p_values.index)


def _cell(auc: float, low: float, high: float) -> str:
    return "one class only" if np.isnan(auc) else f"{auc:.2f} [{low:.2f}, {high:.2f}]"


def _run_without_predictions(runs: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, str]:
    """Runs that lack predictions of a split, or of a task that the other runs of their experiment have."""
    found = {}
    kinds = predictions[["experiment", "run", "split", "task"]].drop_duplicates()
    tasks, of_experiment = (kinds.groupby(column)["task"].agg(set) for column in ("run", "experiment"))
    with_split = {split: set(kinds.loc[kinds["split"] == split, "run"]) for split in SPLITS}
    for run, experiment in zip(runs["run"], runs["experiment"], strict=True):
        lacking = [f"{split} scans" for split in SPLITS if run not in with_split[split]]
        if run in tasks:
            lacking += [f"{task}" for task in sorted(of_experiment[experiment] - tasks[run])]
        if lacking:
            found[run] = (
                f"A run must predict {' and '.join(SPLITS)} scans of every task. Found none of {_listed(lacking)}."
            )
    return found


def _run_with_bad_values(_: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, str]:
    """Runs with a probability or target that is none, or two predictions of one scan."""
    probability = pd.to_numeric(predictions["probability"], errors="coerce")
    target = predictions["target"]
    rules = (
        (~probability.between(0, 1), "probability", "`probability` must be inside [0, 1]."),
        (target.notna() & ~target.isin([0, 1]), "target", "`target` must be 0, 1 or blank."),
        (predictions.duplicated(["run", "task", "scan"]), "scan", "A scan must have one prediction per task."),
    )
    found: dict[str, str] = {}
    for wrong, column, rule in rules:
        for run, rows in predictions[wrong].groupby("run"):
            cases = [f"{row[column]} in {row['scan']} ({row['task']})" for _, row in rows.head(3).iterrows()]
            found.setdefault(str(run), f"{rule} Found {len(rows)} others: {_listed(cases, n_all=len(rows))}.")
    return found


def _run_with_other_settings(runs: pd.DataFrame, _: pd.DataFrame) -> dict[str, str]:
    """Runs whose cohort or shared setting is not that of most; all of an experiment that has no majority.

    A record written before a setting existed has no value of it, which is no difference.
    """
    found: dict[str, str] = {}
    for column, what, of_policy in _shared_columns(runs):
        known = runs[runs[column].notna()]
        if not of_policy:
            _check_majority(known, column, what)
        for experiment, group in known.groupby("experiment", sort=False) if of_policy else [("a study", known)]:
            values = group[column].map(_as_text)
            usual = next((kind for kind, share in values.value_counts(normalize=True).items() if share > 0.5), None)
            for run, value in zip(group["run"], values, strict=True):
                if value != usual:
                    others = "no value in most" if usual is None else f"{usual} in most"
                    rule = f"{what} must be the same in every run of {experiment}."
                    found.setdefault(run, f"{rule} Found {value} here and {others}.")
    return found


def _shared_columns(runs: pd.DataFrame) -> list[tuple[str, str, bool]]:
    """Columns that runs must share: name, words for it, whether only runs of one experiment must."""
    settings = [name.removeprefix("config_") for name in runs.columns if name.startswith("config_")]
    shared = [
        (f"config_{setting}", f"`{setting}`", setting.split("_")[0] in POLICY_SETTINGS)
        for setting in settings
        if setting not in OWN_SETTINGS
    ]
    return [("cohort_sha256", "The cohort table (its sha256)", False), *shared]


def _check_majority(runs: pd.DataFrame, column: str, what: str) -> None:
    values = runs[column].map(_as_text)
    if len(values) and (values == values.mode()[0]).mean() <= 0.5:
        found = "; ".join(f"{kind} in {_listed(list(runs['run'][values == kind]))}" for kind in values.unique())
        raise ValueError(f"{what} must be the same in most runs of a study. Found {found}.")


def _as_text(value: object) -> str:
    return json.dumps(value, default=str)


def _run_with_other_scans(_: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, str]:
    """Runs whose scans, targets or patients are not those of most runs that have the task."""
    place = ["split", "scan", "patient", "target"]
    rows = pd.Series(pd.util.hash_pandas_object(predictions[place], index=False), index=predictions.index)
    kinds = rows.groupby([predictions["task"], predictions["run"]], sort=False).sum()  # blind to the order of rows
    found: dict[str, str] = {}
    for task, of_task in kinds.groupby(level="task", sort=False):
        of_task = of_task.droplevel("task")
        usual = of_task.mode()[0]
        if (of_task == usual).mean() <= 0.5:
            raise ValueError(
                "Most runs must predict the same scans with the same targets and patients. "
                f"Found {of_task.nunique()} kinds of {task} among {_listed(list(of_task.index))}."
            )
        for run in of_task.index[of_task != usual]:
            runs = (run, of_task.index[of_task == usual][0])
            sides = (predictions[(predictions["task"] == task) & (predictions["run"] == name)] for name in runs)
            found.setdefault(run, _scan_problem(*sides, task))
    return found


def _scan_problem(rows: pd.DataFrame, usual: pd.DataFrame, task: str) -> str:
    """What a run's scans of a task have that those of a usual run have not, in a sentence."""
    both = rows.merge(usual, on=["split", "scan"], how="outer", suffixes=("", "_usual"), indicator="side")
    is_common = both["side"] == "both"
    cases = {"missing": both["side"] == "right_only", "not theirs": both["side"] == "left_only"}
    for name in ("target", "patient"):
        cases[f"with another {name}"] = is_common & ~_equal(both[name], both[f"{name}_usual"])
    scans = both["scan"] + " of " + both["split"]
    parts = [
        f"{sum(case)} {words}: {_listed(list(scans[case]), limit=3)}" for words, case in cases.items() if any(case)
    ]
    return f"A run must have the scans, targets and patients of most runs. Found in {task} {'; '.join(parts)}."


def _equal(a: pd.Series, b: pd.Series) -> pd.Series:
    return (a == b) | (a.isna() & b.isna())


def _common_seeds(
    runs: pd.DataFrame, expected: Sequence[str], wanted: Sequence[int]
) -> tuple[set[str], list[tuple[str, str]]]:
    """Names of the runs that tables may hold, and what is left out for their sake."""
    found = {name: set(runs.loc[runs["experiment"] == name, "seed"]) for name in expected}
    problems = [("", f"{name} is left out: it has no run to compare.") for name in expected if not found[name]]
    seeds = {name: of_name for name, of_name in found.items() if of_name}
    while seeds and not set.intersection(*seeds.values()):
        fewest = min(reversed(seeds), key=lambda name: len(seeds[name]))
        words = ", ".join(map(str, sorted(seeds.pop(fewest))))
        problems.append(("", f"{fewest} is left out: no seed is common to all, and it has only {words}."))
    common = set.intersection(*seeds.values()) if seeds else set()
    for seed in [seed for seed in wanted if seed not in common and seeds]:
        having = [name for name in seeds if seed in seeds[name]]
        if not having:
            problems.append(("", f"No experiment has seed {seed}."))
            continue
        ending = f"seed {seed} of {', '.join(having)} is left out."
        lacking = [name for name in seeds if seed not in seeds[name]]
        problems += [(f"{name}-s{seed}", f"{name} has no seed {seed}: {ending}") for name in lacking]
    return set(runs["run"][runs["experiment"].isin(seeds) & runs["seed"].isin(common)]), problems


def _tasks_with_one_class(predictions: pd.DataFrame) -> list[tuple[str, str]]:
    scans = predictions.dropna(subset="target").drop_duplicates(["split", "task", "scan"])
    problems = []
    for split, task in product(SPLITS, predictions["task"].unique()):
        of_task = scans[(scans["split"] == split) & (scans["task"] == task)]
        positive = of_task.groupby("patient")["target"].max() == 1
        n_with, n_without = int(positive.sum()), int((~positive).sum())
        if min(n_with, n_without) < MIN_PER_CLASS:
            rule = f"{task} needs {MIN_PER_CLASS} {split} patients with a positive scan and as many without."
            problems.append(("", f"{rule} Found {n_with} and {n_without}: numbers that need them are blank."))
    return problems


def _listed(names: Sequence[str], *, limit: int = 6, n_all: int = 0) -> str:
    rest = max(len(names), n_all) - min(limit, len(names))
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
