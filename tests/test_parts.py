"""Controls: pairs that differ in one thing, and the schedules that only controls have."""

import dataclasses
from pathlib import Path

import pytest
from made_up import predictions

from lungmtl.comparison.differences import comparison_table
from lungmtl.comparison.parts import CONTRASTS, TELLS, contrasts, parts_table
from lungmtl.comparison.screening import OF_EXPERIMENT
from lungmtl.experiments import in_order, root_of
from lungmtl.policies import BW, ITW, PFLP, Alone, Progress, build, timeline
from lungmtl.study.config import RunConfig
from lungmtl.study.plan import plan_runs

PARAMS = Path(__file__).parents[1] / "params"
DRAWS = {"replicates": 100, "seed": 0}
TASKS = ["lung_cancer", "asthma", "chronic_bronchitis", "copd", "emphysema"]


def configs(study: str) -> dict[str, RunConfig]:
    return {config.experiment: config for config in plan_runs(PARAMS / f"{study}.yaml", seeds=[0])}


def weights_of(config: RunConfig, n_steps: int = 200) -> list[list[float]]:
    table = timeline(build(config.weighting), n_steps=n_steps, steps_per_epoch=10)
    return table[[f"weight_{task}" for task in config.tasks]].to_numpy().tolist()


def test_a_part_is_the_paired_difference_of_the_comparison():
    frame = predictions(("ITW3", "MTL", "MTL3", "STL"))
    found = parts_table(frame, task="lung_cancer", **DRAWS).set_index("part")
    same = comparison_table(frame, references=["STL"], task="lung_cancer", **DRAWS).set_index("experiment").loc["MTL"]

    assert found[["experiment", "reference"]].to_numpy().tolist() == [["MTL", "STL"], ["MTL3", "MTL"], ["ITW3", "MTL3"]]
    names = ["difference", "low", "high", "n_seeds", "n"]
    assert found.loc["sharing", names].tolist() == same[names].tolist()


def test_seeds_agree_that_lie_on_the_side_of_the_mean():
    frame = predictions(("MTL", "STL"), seeds=(0, 1, 2))
    worse = (frame["run"] != "MTL-s1") & (frame["experiment"] == "MTL")
    frame["probability"] = frame["probability"].mask(worse, 1 - frame["probability"])
    better = frame["run"] == "MTL-s1"
    frame["probability"] = frame["probability"].mask(better, 0.5 * frame["probability"] + 0.5 * frame["target"])
    row = parts_table(frame, task="lung_cancer", **DRAWS).iloc[0]

    assert row["difference"] < 0
    assert (row["n_agree"], row["n_seeds"]) == (2, 3)


def test_without_a_pair_there_is_no_part():
    assert parts_table(predictions(("STL", "ITW3")), task="lung_cancer", **DRAWS).empty


def test_a_part_of_a_task_with_one_class_is_blank():
    frame = predictions(("MTL", "STL"))
    frame.loc[frame["split"] == "test", "target"] = 0.0
    found = parts_table(frame, task="lung_cancer", **DRAWS)
    assert found["part"].tolist() == ["sharing"]
    assert found["difference"].isna().all()


@pytest.mark.parametrize(
    ("study", "parts"),
    [
        (
            "controls",
            ["sharing", "focus", "scale", "focus and scale", "rhythm", "auxiliaries", "signal", "transfer", "warm-up"],
        ),
        ("disjoint", ["sharing", "focus and scale", "transfer", "separation", "labels", "sampling", "turns of scans"]),
    ],
)
def test_a_study_has_the_pairs_of_all_its_parts(study, parts):
    found = contrasts(configs(study))
    assert list(dict.fromkeys(part for part, *_ in found)) == parts
    arms = {name for name in configs(study) if root_of(name) != name and ".*" not in name}
    assert arms <= {name for _, *pair in found for name in pair}
    assert {part for part, *_ in CONTRASTS} == set(TELLS)


@pytest.mark.parametrize("study", ["controls", "disjoint"])
def test_what_arms_differ_in_leaves_no_run_out_of_the_comparison(study):
    settings = {name: config.to_dict() for name, config in configs(study).items()}
    of_policy = {field.name for field in dataclasses.fields(RunConfig) if field.name.startswith(("pflp", "itw"))}
    may_differ = {*of_policy, "policy", "experiment", *(name.removeprefix("config_") for name in OF_EXPERIMENT)}
    first = next(iter(settings.values()))
    for found in settings.values():
        assert {name for name, value in found.items() if value != first[name]} <= may_differ


def test_the_four_corners_of_focus_and_scale_have_the_means_that_they_are_named_for():
    found = configs("controls")
    means = {
        name: [sum(column) / 200 for column in zip(*weights_of(found[name]), strict=True)]
        for name in ("MTL2", "MTL2-mean", "MTL2.keepmean", "MTL.aux1")
    }
    for name, expected in {"MTL2": [0.84] + [0.28] * 4, "MTL2.keepmean": [3.0] + [1.0] * 4}.items():
        static = "MTL2-mean" if name == "MTL2" else "MTL.aux1"
        assert means[name] == pytest.approx(expected)
        assert means[static] == pytest.approx(expected)


def test_the_single_task_follows_the_square_wave_of_mtl0():
    found = configs("controls")
    central = [weights[0] for weights in weights_of(found["MTL0"])]
    assert weights_of(found["STL-wave"]) == [[weight] for weight in central]
    assert weights_of(found["MTL2-alone"]) == [[weight, 0, 0, 0, 0] for weight in central]
    assert central[:21] == pytest.approx([3.0] * 20 + [0.3])


def test_itw_after_a_single_task_ends_as_itw_does():
    found = configs("controls")
    single, shared = weights_of(found["ITW2-single"]), weights_of(found["ITW2"])
    assert single[:120] == [[3, 0, 0, 0, 0]] * 120
    assert single[120:] == shared[120:]


def test_alone_keeps_the_base_and_the_decision_of_what_it_acts_on():
    alone = Alone(PFLP(BW(TASKS, [3.0] * 5), period=1))
    decision = alone(Progress(1, 10, 0, 1))
    assert decision.weights == pytest.approx((0.3, 0, 0, 0, 0))
    assert (decision.phase, decision.focus, alone.base) == ("alone", "asthma", (3.0,) * 5)
    assert ITW(alone, start=0.5)(Progress(5, 10, 0, 1)).weights == pytest.approx((3, 0.03, 0.03, 0.03, 0.03))


def test_arms_come_after_the_variants_of_their_root():
    names = ["MTL0", "MTL-full.aux1", "MTL-full", "MTL.aux1", "STL-turns", "UW-full", "UW", "MTL", "STL"]
    expected = ["STL", "STL-turns", "MTL", "MTL.aux1", "MTL-full", "MTL-full.aux1", "MTL0", "UW", "UW-full"]
    assert in_order(names) == expected
    assert [root_of(name) for name in expected[3:6]] == ["MTL"] * 3
