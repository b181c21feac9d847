"""Simulated coverage of every interval: nominal 95 % lies between 93 and 97 %, or the miss is named here."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from lungmtl.evidence.areas import auc
from lungmtl.evidence.decisions import rate
from lungmtl.evidence.probabilities import calibration
from lungmtl.evidence.run_metrics import brier_interval, sensitivity_at_specificity

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results" / "coverage" / "tables" / "coverage.csv"
SOUND = (0.93, 0.97)
MISSES = {  # interval: part of the settings where it misses, as its docstring says
    "sensitivity at 90 % specificity": "AUC 0.95, 10 of 60",  # five negatives and a few positives decide
    "reliability, lowest bin of ten": "10 of 60",  # six scans in a bin
    "mean AUC over seeds": "do not learn",  # few seeds hold no failure, or too many
    "mean AUC difference over seeds": "do not learn",
    "mean AUC, failing seeds allowed for": "",  # never too narrow, see below, and wider than necessary
    "mean AUC difference, failing seeds allowed for": "",
}


def program():
    """benchmarks/coverage.py, which no package holds."""
    spec = importlib.util.spec_from_file_location("coverage_program", ROOT / "benchmarks" / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


coverage = program()


def misses(frame, *, level=0.95):
    """Interval and setting of rows whose coverage lies outside `SOUND`, simulation error taken into account."""
    hits = (frame["coverage"] * frame["n_simulations"]).round()
    shares = [rate(*counts, level=level) for counts in zip(hits, frame["n_simulations"], strict=True)]
    is_out = [share.high < SOUND[0] or share.low > SOUND[1] for share in shares]
    return set(zip(frame["interval"][is_out], frame["setting"][is_out], strict=True))


def is_known(interval, setting):
    return interval in MISSES and MISSES[interval] in setting


def test_the_table_has_every_setting_with_enough_simulations():
    frame = pd.read_csv(TABLE)

    assert list(frame.columns) == coverage.COLUMNS
    assert list(dict.fromkeys(frame["setting"])) == [str(setting) for setting in (*coverage.ONE_RUN, *coverage.SEEDS)]
    assert frame["n_simulations"].min() >= 900  # some studies of the smallest test set have no slope
    assert ((frame["low"] <= frame["coverage"]) & (frame["coverage"] <= frame["high"])).all()


def test_the_table_names_every_miss():
    assert [miss for miss in misses(pd.read_csv(TABLE)) if not is_known(*miss)] == []


def test_a_miss_that_is_named_is_there():
    found = misses(pd.read_csv(TABLE))

    assert {interval for interval, _ in found} == set(MISSES)


def test_intervals_that_allow_for_failing_seeds_are_never_too_narrow_where_the_ordinary_ones_are():
    frame = pd.read_csv(TABLE)
    failing = frame[frame["setting"].str.contains("do not learn") & (frame["coverage"] < SOUND[0])]

    assert not set(failing["interval"]) & set(coverage.ALLOWING)
    assert set(failing["interval"]) == {"mean AUC over seeds", "mean AUC difference over seeds"}


@pytest.mark.slow
def test_intervals_cover_the_truth():
    frame = coverage.coverage(250, seed=1)

    # 250 studies leave 0.014; 99.9 % because some hundred rows are looked at
    assert [miss for miss in misses(frame, level=0.999) if not is_known(*miss)] == []


def test_same_seed_gives_the_same_table():
    settings = {"one_run": coverage.ONE_RUN[-1:], "seeds": coverage.SEEDS[:1]}
    first, again, other = (coverage.coverage(3, seed=seed, **settings) for seed in (1, 1, 2))

    pd.testing.assert_frame_equal(first, again)
    assert not first["coverage"].equals(other["coverage"])


def test_true_values_are_those_of_a_large_sample():
    setting = coverage.OneRun(0.8, 100_000, 300_000, stretch=2.0)
    truth = coverage._truths(setting)
    generator = np.random.default_rng(0)
    target, score = coverage._drawn(setting, generator, np.arange(setting.n_scans) < setting.n_positives)
    probability = setting.probability(score)
    fit = calibration(target, probability, np.arange(setting.n_scans))
    found = {
        "auc": auc(target, probability),
        "average_precision": average_precision_score(target, probability),
        "sensitivity_at_90": sensitivity_at_specificity(target, probability, specificity=0.90),
        "sensitivity_at_95": sensitivity_at_specificity(target, probability, specificity=0.95),
        "sensitivity": np.mean(score[target == 1] >= setting.shift / 2),
        "brier": brier_interval(target, probability, np.arange(setting.n_scans)).value,
        "slope": fit.slope.value,
        "intercept": fit.intercept.value,
    }

    assert found == pytest.approx(truth, abs=0.01)  # 0.003 is what 100,000 positives leave


def test_true_area_over_seeds_is_that_of_a_large_sample():
    setting = coverage.Seeds(3, 0.5, 1.0)
    generator = np.random.default_rng(0)
    shift = 1.3 + 0.5 * generator.normal(size=400_000)
    noise = np.sqrt(2.25) * generator.normal(size=(2, 400_000))

    assert np.mean(shift + noise[0] > noise[1]) == pytest.approx(setting.area(1.3), abs=0.004)
