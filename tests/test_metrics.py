"""Metrics against hand-worked numbers, R pROC, scikit-learn, scipy and simulation."""

import csv
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from lungmtl.evidence.areas import (
    auc,
    auc_interval,
    compare_auc,
    delong_covariance,
    difference_interval,
    difference_of,
    equivalence,
)
from lungmtl.evidence.decisions import holm, mcnemar_exact, rate
from lungmtl.evidence.probabilities import calibration, reliability
from lungmtl.evidence.resampling import (
    bootstrap_areas,
    mean_auc,
    mean_difference,
    patient_weights,
)
from lungmtl.evidence.run_metrics import (
    _weighted_scores,
    brier_interval,
    roc_curve,
    run_scores,
    scores,
    sensitivity_at_specificity,
    youden_threshold,
)
from lungmtl.evidence.variance import detectable_difference, variance_parts

DATA = Path(__file__).parent / "data"
TARGET = np.array([1, 1, 1, 0, 0, 0, 0])
PROBABILITY = np.array([0.9, 0.5, 0.2, 0.5, 0.3, 0.1, 0.1])  # pairs won by a positive: 4 + 3.5 + 2 of 12
PATIENT = np.arange(7)
AGREEMENT = 1e-10  # rounding of float64 over 90 scans stays below 1e-13


def scans(n=300, *, seed=0, n_seeds=1, effect=1.0, seed_sd=0.0):
    """Targets, probabilities (S, N) and patients; every row shares the difficulty of its scans."""
    generator = np.random.default_rng(seed)
    target = (np.arange(n) < n // 4).astype(float)
    shift = effect + seed_sd * generator.normal(size=(n_seeds, 1))
    logit = shift * target + generator.normal(size=n) + 0.5 * generator.normal(size=(n_seeds, n))
    return target, 1 / (1 + np.exp(-logit)), np.arange(n)


def bootstrap_auc(target, probability, patient, *, seed, replicates=2000):
    """Mean AUC over the runs of one experiment with its interval."""
    weight = patient_weights(target, patient, replicates=replicates, seed=seed)
    return mean_auc(target, bootstrap_areas(target, probability, weight))


def bootstrap_difference(target, a, b, patient, *, seed, replicates=2000):
    """Mean AUC difference, paired by scan and by seed."""
    weight = patient_weights(target, patient, replicates=replicates, seed=seed)
    return mean_difference(*(bootstrap_areas(target, side, weight) for side in (a, b)))


def reference_rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def largest_gap(rows):
    """Largest distance of our AUCs, covariance and p value from pROC's."""
    gaps = []
    for row in rows:
        target, a, b = (np.array(row[name].split(), float) for name in ("target", "probability_a", "probability_b"))
        areas, covariance = delong_covariance(target, np.stack([a, b]))
        ours = [*areas, covariance[0, 0], covariance[1, 1], covariance[0, 1], compare_auc(target, a, b).p]
        names = ("auc_a", "auc_b", "variance_a", "variance_b", "covariance", "p")
        gaps.append(np.abs(np.subtract(ours, [float(row[name]) for name in names])).max())
    return max(gaps)


def test_auc_counts_pairs_and_halves_ties():
    assert auc(TARGET, PROBABILITY) == pytest.approx(9.5 / 12)


def test_auc_agrees_with_scikit_learn():
    target, probability, _ = scans()

    assert auc(target, probability[0].round(1)) == pytest.approx(roc_auc_score(target, probability[0].round(1)))


def test_auc_changes_neither_with_order_nor_with_a_monotone_map():
    target, probability, _ = scans()
    shuffled = np.random.default_rng(1).permutation(len(target))

    cubed = auc(target[shuffled], probability[0][shuffled] ** 3)

    assert cubed == pytest.approx(auc(target, probability[0]))


def test_auc_of_reversed_probabilities_is_the_complement():
    assert auc(TARGET, 1 - PROBABILITY) == pytest.approx(1 - auc(TARGET, PROBABILITY))


def test_delong_variance_of_a_hand_worked_case():
    # shares won: positives 1 and 0.5, negatives 1 and 0.5; variances 0.125 each, over 2 scans each
    areas, covariance = delong_covariance([1, 1, 0, 0], np.array([0.9, 0.4, 0.2, 0.6]))

    assert areas == pytest.approx([0.75])
    assert covariance == pytest.approx(0.125)


def test_delong_agrees_with_frozen_proc_values():
    rows = reference_rows(DATA / "proc_reference.csv")

    assert len(rows) >= 200
    assert {"0", "0.5", "1"} <= {row["auc_a"] for row in rows}
    assert largest_gap(rows) < AGREEMENT


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R with pROC")
def test_delong_agrees_with_proc_run_now(tmp_path):
    output = tmp_path / "reference.csv"
    done = subprocess.run(
        ["Rscript", DATA / "proc_reference.R", output], capture_output=True, encoding="utf-8", check=False
    )
    if "no package called" in done.stderr:
        pytest.skip("R has no pROC")

    assert done.returncode == 0, done.stderr
    assert largest_gap(reference_rows(output)) < AGREEMENT


def test_interval_lies_inside_0_and_1_and_around_the_auc():
    target, probability, _ = scans(40, effect=2.0)
    value, low, high = auc_interval(target, probability[0])

    assert 0 < low < value < high < 1
    assert high - value < value - low  # on the logit scale the side towards 1 is the shorter one


def test_interval_is_the_logit_delong_interval():
    areas, covariance = delong_covariance(TARGET, PROBABILITY)
    half = stats.norm.ppf(0.975) * math.sqrt(covariance[0, 0]) / (areas[0] * (1 - areas[0]))
    expected = [1 / (1 + math.exp(-(math.log(areas[0] / (1 - areas[0])) + side * half))) for side in (-1, 1)]

    assert auc_interval(TARGET, PROBABILITY)[1:] == pytest.approx(expected)


@pytest.mark.parametrize("n_negatives", [5, 50])
def test_full_separation_leaves_an_open_side(n_negatives):
    target = np.array([1] * 5 + [0] * n_negatives)
    best = auc_interval(target, target * 0.5)
    worst = auc_interval(target, 1 - target * 0.5)

    assert best == pytest.approx((1, 0.025 ** (1 / 5), 1))  # 5 independent pairs, whatever the larger class
    assert worst == pytest.approx((0, 0, 1 - 0.025 ** (1 / 5)))


def test_comparison_changes_sign_with_its_sides():
    target, probability, _ = scans(n_seeds=2)
    forth = compare_auc(target, *probability)
    back = compare_auc(target, *probability[::-1])

    assert (back.difference, back.low, back.high, back.p) == pytest.approx(
        (-forth.difference, -forth.high, -forth.low, forth.p)
    )


def test_two_perfect_predictors_do_not_differ():
    assert compare_auc(TARGET, TARGET * 0.9, TARGET * 0.4)[:5] == (0, 0, 0, 1, 0)


def test_perfect_against_worst_predictor_differs():
    assert compare_auc(TARGET, TARGET * 0.9, 1 - TARGET * 0.9)[:5] == (1, 1, 1, 0, 0)


def test_bootstrap_of_one_run_agrees_with_delong():
    target, probability, patient = scans(600, n_seeds=2)
    single = bootstrap_auc(target, probability[0], patient, seed=0, replicates=2000)
    paired = bootstrap_difference(target, *probability, patient, seed=0, replicates=2000)

    # 2,000 replicates leave 1.6 % error in a half-width; leaving out the pairing would change it by a third
    assert single == pytest.approx(auc_interval(target, probability[0]), abs=0.003)
    assert paired[:3] == pytest.approx(compare_auc(target, *probability)[:3], abs=0.003)


def test_bootstrap_error_does_not_shrink_with_replicates():
    target, probability, patient = scans()
    few, many = (bootstrap_auc(target, probability, patient, seed=0, replicates=r) for r in (500, 5000))

    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.1)  # 5 deviations of 500 replicates


def test_same_seed_draws_the_same_and_another_does_not():
    target, probability, patient = scans(n_seeds=3)
    first, again, other = (bootstrap_auc(target, probability, patient, seed=seed) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_a_predictor_never_differs_from_itself():
    target, probability, patient = scans(n_seeds=3)

    assert bootstrap_difference(target, probability, probability, patient, seed=0)[:5] == (0, 0, 0, 1, 0)


def test_scans_of_a_patient_are_drawn_together():
    target, probability, _ = scans(100)
    four_times = [np.tile(values, 4) for values in (target, probability[0])]
    once = bootstrap_auc(target, probability[0], np.arange(100), seed=0)
    together = bootstrap_auc(*four_times, np.tile(np.arange(100), 4), seed=0)
    apart = bootstrap_auc(*four_times, np.arange(400), seed=0)

    assert together == pytest.approx(once)
    assert (once.high - once.low) / (apart.high - apart.low) == pytest.approx(2, rel=0.1)


def test_every_replicate_keeps_the_class_counts():
    target = np.array([1.0, 1, 0, 0, 0])
    weight = patient_weights(target, np.arange(5), replicates=200, seed=0)

    assert (weight[:2].sum(axis=0) == 2).all()
    assert (weight[2:].sum(axis=0) == 3).all()


def test_weighted_auc_equals_the_auc_of_repeated_scans():
    weight = np.array([[2, 1], [0, 1], [1, 1], [3, 1], [1, 1], [0, 1], [1, 1]], dtype=float)
    repeated = np.repeat(np.arange(7), weight[:, 0].astype(int))

    assert bootstrap_areas(TARGET, PROBABILITY, weight).draws[0] == pytest.approx(
        [auc(TARGET[repeated], PROBABILITY[repeated]), auc(TARGET, PROBABILITY)]
    )


def test_identical_seeds_add_nothing_to_the_interval():
    target, probability, patient = scans()
    one = bootstrap_auc(target, probability, patient, seed=0)

    assert bootstrap_auc(target, np.repeat(probability, 3, axis=0), patient, seed=0) == pytest.approx(one)


def test_varying_seeds_widen_the_interval():
    target, probability, patient = scans(600, n_seeds=4, seed_sd=0.6)
    both = bootstrap_auc(target, probability, patient, seed=0)
    areas = [auc(target, values) for values in probability]
    seeds_alone = stats.t.ppf(0.975, 3) * np.std(areas, ddof=1) / math.sqrt(4)

    assert both.value == pytest.approx(np.mean(areas))
    assert both.high - both.low > 1.5 * seeds_alone
    assert both.high - both.low < 3 * seeds_alone


def test_seed_part_of_the_error_is_not_understated():
    target, probability, patient = scans(2000, n_seeds=3, seed_sd=1.0)
    weight = patient_weights(target, patient, replicates=2000, seed=0)
    areas = bootstrap_areas(target, probability, weight)
    seed_variance = areas.value.var(ddof=1) / 3

    error, freedom = areas.error()

    # patients add little here
    assert 1 < error**2 / seed_variance < 1.3
    assert 2 <= freedom < 2 * 1.3**1.5  # S - 1 where the seeds are all that varies


def test_parts_of_a_variance_by_hand():
    # three seeds: raw variance 1, own 0.5 each, shared by two seeds 0.2
    parts = variance_parts(np.array([1.0, 2.0, 3.0]), np.full((3, 3), 0.2) + 0.3 * np.eye(3))

    assert parts[:3] == pytest.approx((1 / 3, 0.2, 0.1))
    assert parts.total == pytest.approx(1 / 3 + 0.2)
    assert parts.freedom == pytest.approx(2 * (1 + 0.6) ** 1.5)
    assert parts.with_scans(2)[:3] == pytest.approx((1 / 3 - 0.1 + 0.05, 0.1, 0.05))


def test_seeds_never_vary_less_than_their_luck_with_the_scans():
    parts = variance_parts(np.array([2.0, 2.0, 2.0]), np.full((3, 3), 0.2) + 0.3 * np.eye(3))

    assert parts.total == pytest.approx(0.2 + 0.1)
    assert parts.freedom == math.inf


def test_parts_of_a_variance_are_unbiased_on_simulated_studies():
    generator = np.random.default_rng(0)
    seed_sd, scans_sd, own_sd, n_seeds, n_studies = 0.8, 1.0, 0.5, 4, 4000
    luck = scans_sd * generator.normal(size=(n_studies, 1)) + own_sd * generator.normal(size=(n_studies, n_seeds))
    values = seed_sd * generator.normal(size=(n_studies, n_seeds)) + luck
    covariance = np.full((n_seeds, n_seeds), scans_sd**2) + own_sd**2 * np.eye(n_seeds)
    found = [variance_parts(row, covariance) for row in values]

    assert np.mean([parts.seeds for parts in found]) == pytest.approx((seed_sd**2 + own_sd**2) / n_seeds, rel=0.05)
    assert np.mean([parts.seeds + parts.patients for parts in found]) == pytest.approx(
        values.mean(axis=1).var(ddof=1),
        rel=0.07,  # 4,000 studies leave 2.2 %
    )


def test_bootstrap_covariance_of_runs_agrees_with_delong():
    target, probability, patient = scans(600, n_seeds=3)
    weight = patient_weights(target, patient, replicates=4000, seed=0)
    areas = bootstrap_areas(target, probability, weight)

    assert np.cov(areas.draws) == pytest.approx(delong_covariance(target, probability)[1], rel=0.12)


def difference(value, error, freedom=math.inf):
    return difference_of(value, error, freedom, 0.95)


def test_equivalence_of_a_hand_worked_case():
    assert equivalence(difference(0.0, 0.01), margin=0.02) == pytest.approx(stats.norm.sf(2))
    assert equivalence(difference(-0.02, 0.01), margin=0.02) == pytest.approx(0.5)
    assert equivalence(difference(0.01, 0.01, 4), margin=0.02) == pytest.approx(stats.t.sf(1, 4))
    assert equivalence(difference(0.01, 0.0), margin=0.02) == 0
    assert equivalence(difference(0.03, 0.0), margin=0.02) == 1
    with pytest.raises(ValueError, match=r"`margin` must be above 0. Found 0"):
        equivalence(difference(0.0, 0.01), margin=0)


@pytest.mark.parametrize("freedom", [3, 30, math.inf])
@pytest.mark.parametrize("value", [-0.012, 0.0, 0.004])
def test_equivalence_is_shown_exactly_where_the_90_percent_interval_lies_inside(value, freedom):
    found = difference(value, 0.006, freedom)
    inner = difference_interval(found, level=0.90)
    touching = max(abs(inner.low), abs(inner.high))

    assert equivalence(found, margin=touching * 1.001) < 0.05 < equivalence(found, margin=touching * 0.999)


def test_equivalence_agrees_with_statsmodels():
    values = np.random.default_rng(0).normal(0.003, 0.01, size=12)
    found = difference(values.mean(), values.std(ddof=1) / math.sqrt(12), 11)

    assert equivalence(found, margin=0.01) == pytest.approx(ttost_paired(values, np.zeros(12), -0.01, 0.01)[0])


@pytest.mark.parametrize("freedom", [3, 20, math.inf])
def test_detectable_difference_is_found_in_four_of_five_studies(freedom):
    generator = np.random.default_rng(0)
    true = detectable_difference(0.01, freedom=freedom)
    spread = np.sqrt(generator.chisquare(freedom, 20_000) / freedom) if math.isfinite(freedom) else 1.0
    t = (true + 0.01 * generator.normal(size=20_000)) / (0.01 * spread)

    assert np.mean(t > stats.t.ppf(0.975, freedom)) == pytest.approx(0.8, abs=0.012)  # 4 standard errors


def test_detectable_difference_without_end_is_the_textbooks():
    assert detectable_difference(1.0, freedom=math.inf) == pytest.approx(1.95996 + 0.84162, abs=1e-4)


def test_scores_keep_counts_where_a_class_is_missing():
    rows = [("test", "copd", 1, 0.4), ("test", "copd", 1, 0.6), ("test", "asthma", 1, 0.9), ("test", "asthma", 0, 0.1)]
    rows += [("test", "asthma", 0, 0.2), ("test", "asthma", np.nan, 0.2), ("test", "emphysema", np.nan, 0.3)]
    table = scores(pd.DataFrame(rows, columns=["split", "task", "target", "probability"]))["test"]

    assert {name: table["copd"][name] for name in ("n", "positives")} == {"n": 2, "positives": 2}
    assert np.isnan(table["copd"]["auc"])
    assert (table["asthma"]["auc"], table["asthma"]["n"], table["asthma"]["positives"]) == (1, 3, 1)
    assert np.isnan(table["asthma"]["low"])  # one positive scan has no interval
    assert (table["emphysema"]["n"], table["emphysema"]["positives"]) == (0, 0)  # not known of any scan
    assert np.isnan(list(table["emphysema"].values())[:3]).all()


def test_brier_score_and_average_precision_of_hand_worked_cases():
    target, probability = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    weight = patient_weights(target, np.arange(4), replicates=100, seed=0)

    assert brier_interval([1, 0], [0.8, 0.4], ["a", "b"]).value == pytest.approx((0.04 + 0.16) / 2)
    assert run_scores(target, probability, np.arange(4), weight)["average_precision"].value == pytest.approx(
        (1 + 2 / 3) / 2
    )


def test_metrics_agree_with_scikit_learn_and_statsmodels():
    target, probability, patient = scans()
    a, b = (row >= 0.5 for row in scans(n_seeds=2)[1])
    table = np.array(
        [
            [np.sum((a == target) & (b == target)), np.sum((a == target) & (b != target))],
            [np.sum((a != target) & (b == target)), np.sum((a != target) & (b != target))],
        ]
    )
    p_values = np.random.default_rng(0).random(9) ** 3

    assert brier_interval(target, probability[0], patient).value == pytest.approx(
        brier_score_loss(target, probability[0])
    )
    assert mcnemar_exact(target, a, b).p == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_agrees_with_its_definition():
    p_values = np.random.default_rng(1).random(12) ** 4
    order = np.argsort(p_values)
    stepped = np.minimum(np.maximum.accumulate((12 - np.arange(12)) * p_values[order]), 1)

    assert holm(p_values)[order] == pytest.approx(stepped)


def test_brier_interval_of_a_hand_worked_case():
    # squared errors 0.04, 0.16, 0.01: mean 0.07, deviation 0.0794
    found = brier_interval([1, 0, 0], [0.8, 0.4, 0.1], ["a", "b", "c"])
    half_width = stats.t.ppf(0.975, 2) * np.std([0.04, 0.16, 0.01], ddof=1) / math.sqrt(3) / (0.07 * 0.93)

    assert found == pytest.approx((0.07, *expit(logit(0.07) + np.array([-half_width, half_width]))))
    assert brier_interval([1, 0], [1, 0], ["a", "b"]) == (0, 0, 0)


def test_scans_of_a_patient_are_one_piece_of_evidence():
    target, probability, patient = scans(100)
    four_times = [np.tile(values, 4) for values in (target, probability[0], patient)]

    for metric in (brier_interval, lambda *of: calibration(*of).slope):
        once, together = metric(target, probability[0], patient), metric(*four_times)
        assert together == pytest.approx(once, rel=0.01)  # (N - 1) / N of few observations
    bins, again = (reliability(*of) for of in ((target, probability[0], patient), four_times))
    assert [found.high for found in again] == pytest.approx([found.high for found in bins])


def test_every_draw_of_the_run_scores_is_that_of_the_repeated_scans():
    target, probability, patient = scans(60)
    rough = probability[0].round(1)  # many ties
    weight = patient_weights(target, patient // 2, replicates=100, seed=0)
    areas, precisions, sensitivities = _weighted_scores(target, rough, weight)

    for draw in range(100):
        rows = np.repeat(np.arange(60), weight[:, draw].astype(int))
        of = target[rows], rough[rows]
        assert areas[draw] == pytest.approx(auc(*of))
        assert precisions[draw] == pytest.approx(average_precision_score(*of), rel=1e-5)  # float32
        assert sensitivities[:, draw] == pytest.approx(
            [sensitivity_at_specificity(*of, specificity=share) for share in (0.90, 0.95)]
        )


def test_run_scores_hold_their_values_and_share_the_draws():
    target, probability, patient = scans(400)
    weight = patient_weights(target, patient, replicates=1000, seed=3)
    found = run_scores(target, probability[0], patient, weight)

    assert found["auc"] == pytest.approx(bootstrap_auc(target, probability[0], patient, replicates=1000, seed=3))
    assert found["average_precision"].value == average_precision_score(target, probability[0])
    assert all(score.low < score.value < score.high for score in found.values())
    assert found["sensitivity_at_95"].value < found["sensitivity_at_90"].value


def test_sensitivity_of_1_keeps_an_interval():
    target = np.repeat([1.0, 0.0], 20)
    weight = patient_weights(target, np.arange(40), replicates=200, seed=0)
    found = run_scores(target, 0.2 + 0.5 * target, np.arange(40), weight)

    adjusted = (20 + 1.96**2 / 2) / (20 + 1.96**2)  # 22 of 24: what the interval is built around
    assert found["sensitivity_at_90"] == pytest.approx((1, adjusted, 1), abs=0.001)


def test_reliability_bins_hold_equal_counts_and_wilsons_interval():
    target, probability, patient = scans(200)
    bins = reliability(target, probability[0], patient)
    order = np.argsort(probability[0])
    first = target[order[:20]]

    assert [found.n for found in bins] == [20] * 10
    assert bins[0].observed == first.mean()
    assert bins[0].predicted == pytest.approx(probability[0][order[:20]].mean())
    assert bins[0][2:4] == pytest.approx(proportion_confint(first.sum(), 20, method="wilson"))


def test_reliability_of_repeated_seeds_is_no_surer_than_of_one():
    target, probability, patient = scans(200)
    once = reliability(target, probability[0], patient)
    thrice = reliability(target, np.repeat(probability, 3, axis=0), patient)

    assert np.array(thrice) == pytest.approx(np.array(once))


def test_reliability_of_equal_probabilities_is_one_bin():
    found = reliability(TARGET, np.full(7, 0.3), PATIENT)

    assert [(round(one.observed, 3), one.n) for one in found] == [(0.429, 7)]


def test_rate_is_wilsons_and_blank_without_scans():
    assert rate(3, 10) == pytest.approx((0.3, 0.10779, 0.60322), abs=1e-5)  # Wilson 1927 by hand
    assert np.isnan(rate(0, 0)).all()


def test_calibration_finds_the_distortion_that_was_made():
    generator = np.random.default_rng(0)
    logit = generator.normal(size=20_000)
    target = generator.random(20_000) < 1 / (1 + np.exp(-logit))
    distorted = (expit(logit), expit(2 * logit), expit(logit - 0.7))
    perfect, overconfident, shifted = (calibration(target, row, np.arange(20_000)) for row in distorted)

    assert (perfect.slope.value, perfect.intercept.value) == pytest.approx((1, 0), abs=0.07)  # 4 standard errors
    assert overconfident.slope.value == pytest.approx(0.5, abs=0.035)
    assert (shifted.slope.value, shifted.intercept.value) == pytest.approx((1, 0.7), abs=0.07)
    assert perfect.slope.low < 1 < perfect.slope.high


def test_calibration_of_probabilities_that_hardly_differ_is_refused():
    target = np.repeat([0, 1], 20)
    probability = np.r_[np.linspace(0.49999, 0.5, 20), np.linspace(0.4999999, 0.50001, 20)]  # slope of millions

    with pytest.raises(ValueError, match="a fit with a finite variance"):
        calibration(target, probability, np.arange(40))


def test_sensitivity_at_specificity_of_a_hand_worked_case():
    target = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    probability = [0.95, 0.9, 0.7, 0.2, 0.8, 0.6, 0.5, 0.4, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1]

    assert sensitivity_at_specificity(target, probability, specificity=0.95) == 0.5
    assert sensitivity_at_specificity(target, probability, specificity=0.9) == 0.75


def test_youden_threshold_of_a_hand_worked_case():
    assert youden_threshold([0, 0, 1, 1, 0], [0.1, 0.3, 0.4, 0.8, 0.5]) == 0.4
    assert youden_threshold([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.1, 0.4, 0.3, 0.2]) == 0.8  # 2/3 sensitive
    assert youden_threshold([0, 1], [0.9, 0.1]) == 0.1  # no better than chance: everybody is positive


def test_roc_curve_takes_the_upper_end_of_a_rise():
    found = roc_curve([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], false_positive_rate=np.array([0, 0.25, 0.5, 1]))

    assert found == pytest.approx([0.5, 0.5, 1, 1])


def test_mcnemar_counts_discordant_scans():
    target = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    a = np.array([1, 1, 0, 0, 0, 0, 0, 1])
    b = np.array([0, 1, 0, 1, 1, 1, 0, 0])
    found = mcnemar_exact(target, a, b)

    assert (found.only_a_right, found.only_b_right) == (4, 1)
    assert found.p == pytest.approx(2 * (1 + 5) / 2**5)
    assert mcnemar_exact(target, a, a) == (0, 0, 1)


def test_holm_of_a_hand_worked_family():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]).size == 0


@pytest.mark.parametrize(
    ("target", "probability", "message"),
    [
        ([1, 1], [0.1, 0.2], "Both classes are required. Found 2 positive and 0 negative scans"),
        ([], [], "Both classes are required. Found 0 positive"),
        ([1, 0], [0.1, np.nan], r"numbers in \[0, 1\]. Found 1 others, first nan"),
        ([1, 0], [0.1, 1.2], r"numbers in \[0, 1\]. Found 1 others, first 1.2"),
        ([1, 0, 1], [0.1, 0.2], "one value per scan, 3 in all. Found shape"),
        ([1, 2], [0.1, 0.2], r"`target` must be 0 or 1, unknown scans left out. Found \[2.0\]"),
        ([1, np.nan], [0.1, 0.2], r"`target` must be 0 or 1, unknown scans left out. Found \[nan\]"),
        ([1, 0], [[0.1, 0.2], [0.3, 0.1]], r"of one predictor, \(N,\). Found shape \(2, 2\)"),
    ],
)
@pytest.mark.parametrize(
    "metric", [auc, lambda *of: brier_interval(*of, None), lambda *of: run_scores(*of, None, None), youden_threshold]
)
def test_bad_arrays_are_named(metric, target, probability, message):
    with pytest.raises(ValueError, match=message):
        metric(target, probability)


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match=r"two scans of each class. Found 1 positive and 2 negative"):
        auc_interval([1, 0, 0], [0.4, 0.1, 0.2])
    with pytest.raises(ValueError, match=r"same seeds and draws on both sides. Found shapes"):
        bootstrap_difference(TARGET, PROBABILITY, np.stack([PROBABILITY] * 2), PATIENT, seed=0, replicates=400)
    with pytest.raises(ValueError, match=r"one value per scan. Found 6 for 7 scans"):
        bootstrap_auc(TARGET, PROBABILITY, PATIENT[1:], seed=0)
    with pytest.raises(ValueError, match=r"needs two seeds and their covariance. Found 1 and shape \(1, 1\)"):
        variance_parts(np.ones(1), np.ones((1, 1)))
    with pytest.raises(ValueError, match=r"at least 100 replicates. Found 10"):
        bootstrap_auc(TARGET, PROBABILITY, PATIENT, seed=0, replicates=10)
    with pytest.raises(ValueError, match=r"must hold both classes. Found"):
        bootstrap_auc([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], np.array([0, 1, 1, 1]), seed=0)
    with pytest.raises(ValueError, match=r"classes that overlap. Found AUC 1 over 2"):
        calibration([1, 0], [0.9, 0.1], ["a", "b"])
    with pytest.raises(ValueError, match=r"`specificity` must be inside \(0, 1\). Found 90"):
        sensitivity_at_specificity(TARGET, PROBABILITY, specificity=90)
    with pytest.raises(ValueError, match=r"`level` must be inside \(0, 1\). Found 95"):
        difference_interval(compare_auc(TARGET, PROBABILITY, TARGET), level=95)
    with pytest.raises(ValueError, match=r"`decision_b` must be 0 or 1"):
        mcnemar_exact(TARGET, TARGET, PROBABILITY)
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\]. Found \[0.5, nan\]"):
        holm([0.5, np.nan])
