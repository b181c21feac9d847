"""Coverage of every interval that the comparison prints: simulated studies whose truth is known.

`python -m benchmarks.coverage [--simulations 1500] [--seed 0] [--out results/coverage/tables]` writes coverage.csv, one
row per interval and setting: the share of simulated studies whose 95 % interval holds the truth, with Wilson's interval
of that share. About eight minutes on one thread with the defaults. The figure goes next to it, into figures/.

The model is binormal: a scan's score is normal with deviation 1, its mean higher by `shift` for positives, and the
probability is the exact chance of a positive given the score, so that every true value can be computed. Over seeds, a
scan keeps a part of its score, and every network has a shift of its own. Class counts are fixed, as in the stratified
draws, but for Brier score and calibration, whose intervals are for scans drawn anew: there they are binomial.

It also shows where an interval misses: with ten positives, hardly any scans decide; and where some trainings do not
learn (their shift is `FAILED`), the mean over few seeds says little of those that failed, or were lucky not to.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from scipy import integrate, optimize, stats
from scipy.special import expit, logit

from lungmtl import figures
from lungmtl.comparison import LEARNT_LOW
from lungmtl.evidence.areas import auc, auc_interval, compare_auc
from lungmtl.evidence.decisions import rate
from lungmtl.evidence.failing import allowing_difference, allowing_mean
from lungmtl.evidence.probabilities import calibration, reliability
from lungmtl.evidence.resampling import bootstrap_areas, mean_auc, mean_difference, patient_weights
from lungmtl.evidence.run_metrics import brier_interval, run_scores
from lungmtl.tables import write_csv

LEVEL = 0.95
FAILED = 0.25  # shift of a network that did not learn: AUC 0.56
REPLICATES = 400  # of the bootstrap: leaves 3.5 % error in a half-width, which moves coverage by 0.1 %
ALLOWING = ("mean AUC, failing seeds allowed for", "mean AUC difference, failing seeds allowed for")
COLUMNS = ["interval", "setting", "nominal", "coverage", "low", "high", "n_simulations"]
OUT = Path(__file__).resolve().parents[1] / "results" / "coverage" / "tables"


class OneRun(NamedTuple):
    """A single network on one test set; probabilities have `stretch` times the right logit."""

    area: float
    n_positives: int
    n_scans: int
    stretch: float = 1.0

    def __str__(self) -> str:
        ending = "" if self.stretch == 1 else f", logits x {self.stretch:g}"
        return f"AUC {self.area:g}, {self.n_positives} of {self.n_scans} positive{ending}"

    @property
    def shift(self) -> float:
        """Distance of the two classes in deviations of the score."""
        return float(np.sqrt(2) * stats.norm.ppf(self.area))

    @property
    def prevalence(self) -> float:
        """Share of positives."""
        return self.n_positives / self.n_scans

    def probability(self, score: np.ndarray) -> np.ndarray:
        """Chance of a positive given the score, its logit stretched."""
        return expit(self.stretch * (self.shift * score - self.shift**2 / 2 + logit(self.prevalence)))


class Seeds(NamedTuple):
    """Two experiments with several seeds on the same scans."""

    n_seeds: int
    seed_sd: float  # deviation of the networks' shifts
    own: float  # variance of a score that a seed has alone, next to 1 that all share and 0.25 of the experiment
    n_positives: int = 100
    n_scans: int = 300
    shifts: tuple[float, float] = (1.3, 1.5)
    failing: tuple[float, float] = (0.0, 0.0)  # share of the trainings of either experiment that do not learn
    n_sets: int = 1  # training sets, dealt to the seeds in turn
    set_sd: float = 0.0  # deviation of the shifts between training sets

    def __str__(self) -> str:
        sets = f" on {self.n_sets} training sets, shift sd {self.set_sd:g}" if self.n_sets > 1 else ""
        failing = " and ".join(f"{share:.0%}" for share in self.failing)
        ending = f", {failing} do not learn" if any(self.failing) else ""
        return f"{self.n_seeds} seeds{sets}, shift sd {self.seed_sd:g}, own variance {self.own:g}{ending}"

    def area(self, shift: float, failing: float = 0.0) -> float:
        """True mean AUC over all training sets, seeds and scans."""
        deviation = np.sqrt(2 * (1.25 + self.own) + self.seed_sd**2 + self.set_sd**2)
        return float((1 - failing) * stats.norm.cdf(shift / deviation) + failing * stats.norm.cdf(FAILED / deviation))

    def drawn(self, shift: float, failing: float, generator: np.random.Generator) -> np.ndarray:
        """Shifts of the networks of one experiment, (S, 1)."""
        if failing:
            shift = np.where(generator.random((self.n_seeds, 1)) < failing, FAILED, shift)
        of_sets = self.set_sd * generator.normal(size=(self.n_sets, 1)) if self.n_sets > 1 else np.zeros((1, 1))
        return shift + of_sets[self.sets] + self.seed_sd * generator.normal(size=(self.n_seeds, 1))

    @property
    def sets(self) -> list[int]:
        """Training set of every seed."""
        return [seed % self.n_sets for seed in range(self.n_seeds)]


ONE_RUN = (
    OneRun(0.6, 100, 300),
    OneRun(0.8, 100, 300),
    OneRun(0.95, 100, 300),
    OneRun(0.8, 100, 300, stretch=2.0),
    OneRun(0.8, 200, 600),
    OneRun(0.8, 10, 60),
    OneRun(0.95, 10, 60),
)
LEARNABLE = (150, 400, (1.9, 1.9))  # scans, and shifts as in the studies: AUC 0.86, or 0.56 where a training fails
SEEDS = (
    Seeds(3, 0.0, 0.25),
    Seeds(3, 0.1, 0.25),
    Seeds(3, 0.3, 0.25),
    Seeds(5, 0.0, 0.25),
    Seeds(5, 0.1, 0.25),
    Seeds(5, 0.3, 0.25),
    Seeds(5, 0.1, 1.0),
    Seeds(8, 0.1, 0.25, n_sets=4, set_sd=0.15),
    Seeds(4, 0.1, 0.25, *LEARNABLE, failing=(0.05, 0.0)),
    Seeds(3, 0.1, 0.25, *LEARNABLE, failing=(0.2, 0.2)),
    Seeds(4, 0.1, 0.25, *LEARNABLE, failing=(0.2, 0.0)),
    Seeds(5, 0.1, 0.25, *LEARNABLE, failing=(0.2, 0.2)),
    Seeds(5, 0.1, 0.25, *LEARNABLE, failing=(0.5, 0.0)),
    Seeds(4, 0.1, 0.25, *LEARNABLE, failing=(0.2, 0.2)),
)


def main() -> None:
    """Simulate every setting and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    frame = coverage(options.simulations, seed=options.seed)
    write_csv(frame, options.out / "coverage.csv", float_format="%.4f")
    draw(frame, options.out.parent / "figures")
    print(frame.to_string(index=False))


def draw(frame: pd.DataFrame, folder: Path) -> None:
    """Draw the table into `folder`, coverage.png and coverage.svg, the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = figures.coverage(frame)
    with matplotlib.rc_context({"svg.hashsalt": "coverage", "savefig.dpi": 200}):
        figure.savefig(folder / "coverage.svg", metadata={"Date": None, "Creator": None})
        figure.savefig(folder / "coverage.png", metadata={"Software": None})


def coverage(
    n_simulations: int, *, seed: int, one_run: tuple[OneRun, ...] = ONE_RUN, seeds: tuple[Seeds, ...] = SEEDS
) -> pd.DataFrame:
    """Coverage of every interval in every setting, with Wilson's interval; columns `COLUMNS`.

    Args:
        n_simulations: Simulated studies per setting; a study where an interval does not exist is not counted.
        seed: Seeds the simulation.
        one_run: Settings with one network.
        seeds: Settings with several seeds.
    """
    rows = []
    studies = [(_one_run(setting), str(setting)) for setting in one_run]
    studies += [(_over_seeds(setting), str(setting)) for setting in seeds]
    for position, (study, setting) in enumerate(studies):
        rows += _counted(study, setting, n_simulations, np.random.default_rng([seed, position]))
    return pd.DataFrame(rows, columns=COLUMNS)


def _counted(
    study: Callable[..., Iterator], setting: str, n_simulations: int, generator: np.random.Generator
) -> list[tuple]:
    hits: dict[str, list[float]] = {}
    for number in range(n_simulations):
        for interval, low, high, truth in study(generator, number):
            if not np.isnan(low):
                hits.setdefault(interval, []).append(low <= truth <= high)
    shares = {interval: rate(int(np.sum(values)), len(values)) for interval, values in hits.items()}
    return [(interval, setting, LEVEL, *share, len(hits[interval])) for interval, share in shares.items()]


def _one_run(setting: OneRun) -> Callable[..., Iterator]:
    """A function that simulates a study and yields name, low, high and truth of every interval."""
    truth = _truths(setting)

    def study(generator: np.random.Generator, number: int) -> Iterator[tuple[str, float, float, float]]:
        target, score = _drawn(setting, generator, np.arange(setting.n_scans) < setting.n_positives)
        probability, patient = setting.probability(score), np.arange(setting.n_scans)
        weight = patient_weights(target, patient, replicates=REPLICATES, seed=number)
        found = run_scores(target, probability, patient, weight)
        yield "AUC, DeLong", *auc_interval(target, probability)[1:], truth["auc"]
        yield "AUC, patient bootstrap", *found["auc"][1:], truth["auc"]
        yield "average precision", *found["average_precision"][1:], truth["average_precision"]
        yield "sensitivity at 90 % specificity", *found["sensitivity_at_90"][1:], truth["sensitivity_at_90"]
        yield "sensitivity at 95 % specificity", *found["sensitivity_at_95"][1:], truth["sensitivity_at_95"]
        called = score[target == 1] >= setting.shift / 2
        yield "sensitivity at a threshold", *rate(int(called.sum()), len(called))[1:], truth["sensitivity"]
        target, score = _drawn(setting, generator, generator.random(setting.n_scans) < setting.prevalence)
        yield from _calibrated(target, setting.probability(score), truth, is_right=setting.stretch == 1)

    return study


def _drawn(setting: OneRun, generator: np.random.Generator, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    target = positive.astype(float)
    return target, setting.shift * target + generator.normal(size=setting.n_scans)


def _calibrated(
    target: np.ndarray, probability: np.ndarray, truth: dict[str, float], *, is_right: bool
) -> Iterator[tuple[str, float, float, float]]:
    patient = np.arange(len(target))
    if target.sum() in (0, len(target)):
        return
    yield "Brier score", *brier_interval(target, probability, patient)[1:], truth["brier"]
    if auc(target, probability) < 1:
        fit = calibration(target, probability, patient)
        yield "calibration slope", *fit.slope[1:], truth["slope"]
        yield "calibration intercept", *fit.intercept[1:], truth["intercept"]
    if is_right:  # then the share of positives to expect in a bin is its mean probability
        bins = reliability(target, probability, patient)
        for which, found in (("lowest", bins[0]), ("highest", bins[-1])):
            yield f"reliability, {which} bin of ten", found.low, found.high, found.predicted


def _over_seeds(setting: Seeds) -> Callable[..., Iterator]:
    areas = list(map(setting.area, setting.shifts, setting.failing))

    def study(generator: np.random.Generator, number: int) -> Iterator[tuple[str, float, float, float]]:
        n, n_seeds = setting.n_scans, setting.n_seeds
        target = (np.arange(n) < setting.n_positives).astype(float)
        shared, rows = generator.normal(size=n), []
        for shift, failing in zip(setting.shifts, setting.failing, strict=True):
            shifts = setting.drawn(shift, failing, generator)
            of_seeds = np.sqrt(setting.own) * generator.normal(size=(n_seeds, n))
            rows.append(expit(shifts * target + shared + 0.5 * generator.normal(size=n) + of_seeds))
        weight = patient_weights(target, np.arange(n), replicates=REPLICATES, seed=number)
        sets = setting.sets if setting.n_sets > 1 else None
        a, b = (bootstrap_areas(target, row, weight)._replace(sets=sets) for row in rows)
        yield "mean AUC over seeds", *mean_auc(target, a)[1:], areas[0]
        found = mean_difference(a, b)
        yield "mean AUC difference over seeds", found.low, found.high, areas[0] - areas[1]
        if any(setting.failing) or sets:
            learnt = [np.array([auc_interval(target, one).low > LEARNT_LOW for one in row]) for row in rows]
            yield ALLOWING[0], *allowing_mean(target, a, learnt[0], bound=LEARNT_LOW)[1:], areas[0]
            found = allowing_difference(a, b, *learnt, bound=LEARNT_LOW)
            yield ALLOWING[1], found.low, found.high, areas[0] - areas[1]
        elif not setting.seed_sd:  # DeLong's interval is for two given networks, all alike here
            one = compare_auc(target, rows[0][0], rows[1][0])
            yield "AUC difference, paired DeLong", one.low, one.high, areas[0] - areas[1]

    return study


def _truths(setting: OneRun) -> dict[str, float]:
    """True values of the binormal model, by integration where there is no formula."""
    shift, share = setting.shift, setting.prevalence

    def mean(of: Callable[[float, float], float]) -> float:
        """Expectation of a function of target and score."""
        parts = [
            weight * integrate.quad(lambda x, t=t, m=m: of(t, x) * stats.norm.pdf(x - m), m - 9, m + 9)[0]
            for t, m, weight in ((0.0, 0.0, 1 - share), (1.0, shift, share))
        ]
        return float(sum(parts))

    def precision(sensitivity: float) -> float:
        called = share * sensitivity
        return called / (called + (1 - share) * stats.norm.sf(stats.norm.isf(sensitivity) + shift))

    def gap(intercept: float) -> float:
        return mean(lambda _, x: expit(logit(setting.probability(x)) + intercept)) - share

    return {
        "auc": setting.area,
        "average_precision": integrate.quad(precision, 0, 1, limit=200)[0],
        "sensitivity_at_90": float(stats.norm.sf(stats.norm.isf(0.10) - shift)),
        "sensitivity_at_95": float(stats.norm.sf(stats.norm.isf(0.05) - shift)),
        "sensitivity": float(stats.norm.cdf(shift / 2)),
        "brier": mean(lambda t, x: (t - setting.probability(x)) ** 2),
        "slope": 1 / setting.stretch,
        "intercept": float(optimize.brentq(gap, -5, 5)),
    }


if __name__ == "__main__":
    main()
