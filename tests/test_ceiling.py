"""Settings of the phantom: odds ratios as asked, ideal readers calibrated and right where the answer is known."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import ndimage
from scipy.special import expit, logit

from lungmtl.evidence.areas import auc
from lungmtl.experiments import TASKS
from lungmtl.sources import diagnoses
from lungmtl.sources.anatomy import Space
from lungmtl.sources.diagnoses import EXPOSURES, OF_EXPOSURES, auxiliary_log_ratio, laws
from lungmtl.sources.nodules import MAX_LOG_RATIO, TRUTH_MALIGNANT, Nodule, draw_nodules, nodule_log_ratio
from lungmtl.sources.phantom import draw_patient, make_volume
from lungmtl.sources.phantom_settings import USUAL, Knobs
from lungmtl.sources.readings import read_truth
from lungmtl.study.config import RunConfig

PUBLISHED = (1.28, 1.47, 2.22, 2.44)
SPACE, LUNG = Space((3, 3, 3), (1.0, 1.0, 1.0)), np.argwhere(np.ones((3, 3, 3)))
README = (Path(__file__).parents[1] / "params" / "README.md").read_text(encoding="utf-8")


def draw_many(knobs, n):
    generator = np.random.default_rng(5)
    return pd.DataFrame([draw_patient(generator, knobs) for _ in range(n)])


def with_ratios(knobs, n):
    """Patients with what an ideal reader makes of them; the nodules lie in lungs of 27 voxels."""
    generator, own = np.random.default_rng(6), np.random.default_rng(7)
    frame = draw_many(knobs, n)
    patients = frame.to_dict("records")
    drawn = [draw_nodules(LUNG, SPACE, patient, knobs, generator, own) for patient in patients]
    return frame.assign(
        nodule_log_ratio=[nodule_log_ratio(nodules, knobs) for nodules in drawn],
        auxiliary_log_ratio=[auxiliary_log_ratio(patient, knobs) for patient in patients],
        n_malignant=[sum(nodule.malignant for nodule in nodules) for nodules in drawn],
    )


def areas(frame):
    """AUC of all nodules, and of these with the auxiliary truth."""
    both = frame["nodule_log_ratio"] + frame["auxiliary_log_ratio"]
    target = frame["true_lung_cancer"].to_numpy()
    values = (frame["nodule_log_ratio"], both)
    return [auc(target, value.round(5).rank(pct=True).to_numpy()) for value in values]  # as truth.csv has them


def odds_ratio(cells):
    return cells[1, 1] * cells[0, 0] / (cells[0, 1] * cells[1, 0])


def test_drawn_odds_ratios_are_those_asked_for():
    frame = draw_many(Knobs(odds_ratios=PUBLISHED), 20_000)
    usual = {"asthma": 0.270, "chronic_bronchitis": 0.307, "copd": 0.345, "emphysema": 0.398}
    for task, wanted in zip(TASKS[1:], PUBLISHED, strict=True):
        cells = pd.crosstab(frame["true_lung_cancer"], frame[f"true_{task}"]).to_numpy()
        error = np.sqrt((1 / cells).sum())  # of the log odds ratio, 0.030 to 0.033
        assert abs(np.log(odds_ratio(cells) / wanted)) < 3 * error, task
        assert frame[f"true_{task}"].mean() == pytest.approx(usual[task], abs=0.0104)  # three deviations
    assert frame["true_lung_cancer"].mean() == pytest.approx(0.4, abs=0.0104)


@pytest.mark.parametrize("prevalence", [0.05, 0.4, 0.7])
@pytest.mark.parametrize("ratios", [PUBLISHED, (0.5, 1.0, 6.0, 20.0)])
def test_laws_hold_odds_ratios_and_prevalences_exactly(prevalence, ratios):
    found, usual = laws(Knobs(odds_ratios=ratios, prevalence=prevalence)), laws(Knobs())

    def chance(law, has_cancer=0):
        return expit(law.intercept + law.slope * EXPOSURES + law.with_cancer * has_cancer)

    cancer = OF_EXPOSURES * chance(found["lung_cancer"])
    assert cancer.sum() == pytest.approx(prevalence, abs=1e-4)  # the usual one is 0.39999
    for task, wanted in zip(TASKS[1:], ratios, strict=True):
        ill = np.array([(OF_EXPOSURES - cancer) @ chance(found[task]), cancer @ chance(found[task], 1)])
        all_of = np.array([1 - cancer.sum(), cancer.sum()])
        assert odds_ratio(np.column_stack([all_of - ill, ill])) == pytest.approx(wanted, rel=1e-6)
        assert ill.sum() == pytest.approx(OF_EXPOSURES @ chance(usual[task]))


def test_severity_follows_the_exposure_as_far_as_asked():
    for share, least, most in ((0.0, -0.15, 0.15), (0.5, 0.55, 0.9), (1.0, 0.9999, 1)):
        frame = draw_many(Knobs(exposure_severity=share), 1500).query("true_asthma == 1")  # about 400: deviation 0.05
        rank = frame[["exposure", "severity_asthma"]].corr(method="spearman").iloc[0, 1]
        assert least <= rank <= most
        assert frame["severity_asthma"].between(0.3, 1.0).all()


@pytest.mark.parametrize("invisible", [0.0, 0.3, 1.0])
def test_separable_cancers_have_a_ceiling_of_1_and_invisible_ones_of_a_half(invisible):
    frame = with_ratios(Knobs(wall_masses=1.0, invisible=invisible), 600)
    ill = frame[frame["true_lung_cancer"] == 1]
    missed = 1 - ill["n_malignant"].mean()
    assert missed == pytest.approx(invisible, abs=0.09)  # 240 cancers: three deviations
    assert (frame.loc[frame["true_lung_cancer"] == 0, "n_malignant"] == 0).all()
    assert areas(frame)[0] == pytest.approx(1 - missed / 2, abs=1e-12)


def test_one_auxiliary_diagnosis_gains_what_its_2x2_table_says(monkeypatch):
    # prevalences of a half and an odds ratio of 4: two thirds of those with cancer are ill, and one third of the others
    monkeypatch.setattr(diagnoses, "LABEL_ODDS", dict.fromkeys(TASKS, (0.0, 0.0)))
    laws.cache_clear()
    knobs = Knobs(prevalence=0.4999999, odds_ratios=(1, 1, 1, 4), invisible=0.5, wall_masses=1.0)
    frame = with_ratios(knobs, 800)
    laws.cache_clear()
    told = frame.groupby("true_emphysema")["auxiliary_log_ratio"].agg(["min", "max"]).to_numpy()
    assert told.ravel() == pytest.approx(np.log([1 / 2, 1 / 2, 2, 2]), abs=1e-5)

    # certain cancers rank above all; the others above the well, halfway among the equally ill
    healthy, missed = (frame.query(f"true_lung_cancer == {has} and n_malignant == 0") for has in (0, 1))
    n_cancers, ill = frame["true_lung_cancer"].sum(), healthy["true_emphysema"].mean()
    above = missed["true_emphysema"].map({1: 1 - ill / 2, 0: (1 - ill) / 2}).sum()
    by_hand = [1 - len(missed) / n_cancers / 2, (n_cancers - len(missed) + above) / n_cancers]
    assert areas(frame) == pytest.approx(by_hand, abs=1e-12)
    assert by_hand == pytest.approx([0.75, 0.75 + 0.5 / 6], abs=0.05)


def test_ideal_readers_are_calibrated():
    frame = with_ratios(Knobs(odds_ratios=PUBLISHED, exposure_severity=0.5, invisible=0.2, wall_masses=0.1), 4000)
    known = {"all nodules": frame["nodule_log_ratio"], "both": frame["nodule_log_ratio"] + frame["auxiliary_log_ratio"]}
    for name, ratio in {**known, "auxiliary": frame["auxiliary_log_ratio"]}.items():
        chance = expit(logit(0.4) + ratio)
        for part in np.array_split(np.argsort(chance.to_numpy()), 5):
            expected, found = chance.iloc[part], frame["true_lung_cancer"].iloc[part].sum()
            error = np.sqrt((expected * (1 - expected)).sum())
            assert abs(found - expected.sum()) < 3.5 * error + 1e-3, name


def test_nodules_tell_by_size_shape_and_attenuation():
    def told(diameter_mm, irregularity=0.18, hu=35.0, knobs=USUAL):
        return nodule_log_ratio([Nodule(np.zeros(3), diameter_mm, irregularity, hu, False)], knobs)

    assert told(6.0) == -MAX_LOG_RATIO  # smaller than any malignant one
    assert told(16.0) == MAX_LOG_RATIO  # larger than any benign one
    assert told(9.0) < told(12.0)
    assert told(10.0, hu=400.0) == -MAX_LOG_RATIO
    assert told(10.0, hu=-500.0) == pytest.approx(told(10.0) + np.log(1 - 0.31))
    assert told(10.0, knobs=Knobs(wall_masses=0.5)) == pytest.approx(told(10.0) - np.log(2))
    assert nodule_log_ratio([], Knobs(invisible=0.25)) == pytest.approx(np.log(0.25))


@pytest.fixture(scope="module")
def ends():
    """One scan of a patient with severe emphysema and bronchitis and with lung cancer, at both ends."""
    knobs = {"usual": Knobs(), "related": Knobs(relatedness=1.0, wall_masses=1.0), "missed": Knobs(invisible=1.0)}
    return {name: make_volume(np.random.default_rng([0, 202]), own) for name, own in knobs.items()}


def test_related_signs_are_focal_and_stand_in_the_diffuse_ones_place(ends):
    usual, related = (ends[name][3] for name in ("usual", "related"))
    assert (usual["n_bullae"], usual["n_plugs"]) == (0, 0)
    assert (related["n_bullae"], related["n_plugs"]) == (24, 15)
    assert related["laa950"] < 0.03 < 0.2 < usual["laa950"]
    assert related["wall_thickness_mm"] < 1.5 < 1.9 < usual["wall_thickness_mm"]
    assert [related[f"true_{task}"] for task in TASKS] == [usual[f"true_{task}"] for task in TASKS]
    read = read_truth(pd.DataFrame([usual, related]).assign(scan=["a", "b"])).set_index("scan")
    for task in ("chronic_bronchitis", "emphysema"):  # about as much of a sign, whichever it is
        assert read.loc["b", task] == pytest.approx(read.loc["a", task], rel=0.15)


def test_a_mass_is_large_and_stands_at_the_wall_and_a_missed_cancer_leaves_nothing(ends):
    _, labels, space, truth = ends["related"]
    mass = labels == TRUTH_MALIGNANT
    assert 30 <= truth["diameter_mm"] <= 50
    assert (np.ptp(np.argwhere(mass), axis=0) * space.spacing_mm).max() > 20
    assert (ndimage.binary_dilation(mass, iterations=2) & (labels == 0)).sum() > 50
    assert truth["nodule_log_ratio"] == MAX_LOG_RATIO
    assert ends["missed"][3]["true_lung_cancer"] == 1
    assert not (ends["missed"][1] == TRUTH_MALIGNANT).any()


def test_the_readme_states_the_ceilings_of_its_settings():
    settings = yaml.safe_load(re.search(r"```yaml\n(phantom_scans.*?)```", README, re.DOTALL)[1])
    config = RunConfig.from_mapping(settings | {"phantom_relatedness": 1.0})
    assert config.phantom.n_test >= 1920
    stated = re.search(r"\| all nodules \| (0\.\d+) \|\n\| all nodules and auxiliary truth \| (0\.\d+) \|", README)
    # 3,000 patients: deviations 0.0066 and 0.0058
    assert areas(with_ratios(config.phantom.knobs, 3000)) == pytest.approx([*map(float, stated.groups())], abs=0.018)
