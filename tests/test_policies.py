"""The policies give exactly the published worked weights, keep their defining properties, and refuse bad settings."""

import dataclasses
import math
import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from lungmtl.experiments import TASKS
from lungmtl.policies.catalogue import Weighting, build, describe, names
from lungmtl.policies.contract import Decision, Policy, Progress, Step
from lungmtl.policies.schedules import BW, ITW, PFLP
from lungmtl.policies.timelines import timeline
from lungmtl.study.config import RunConfig

N_STEPS = 200  # the final stage of ITW starts at step 120
BASES = {
    "MTL": (3, 3, 3, 3, 3),
    "MTL0": (3, 0.01, 0.01, 0.01, 0.01),
    "MTL2": (3, 1, 1, 1, 1),
    "ITW1": (3, 3, 3, 3, 3),
    "ITW3": (3, 3, 3, 3, 3),
}
POLICIES: dict[str, Policy] = {
    "MTL": BW(TASKS, BASES["MTL"]),
    "MTL0": PFLP(BW(TASKS, BASES["MTL0"])),
    "MTL2": PFLP(BW(TASKS, BASES["MTL2"])),
    "ITW1": ITW(BW(TASKS, BASES["ITW1"])),
    "ITW3": ITW(PFLP(BW(TASKS, BASES["ITW3"]))),
}
WORKED = [
    *[("MTL2", step, (3, 0.1, 0.1, 0.1, 0.1), "focus", "lung_cancer") for step in range(20)],
    *[("MTL2", step, (0.3, 1, 0.1, 0.1, 0.1), "focus", "asthma") for step in range(20, 40)],
    ("MTL2", 99, (0.3, 0.1, 0.1, 0.1, 1), "focus", "emphysema"),
    ("MTL2", 100, (3, 0.1, 0.1, 0.1, 0.1), "focus", "lung_cancer"),
    ("MTL0", 25, (0.3, 0.01, 0.001, 0.001, 0.001), "focus", "asthma"),
    ("ITW3", 45, (0.3, 0.3, 3, 0.3, 0.3), "focus", "chronic_bronchitis"),
    *[("ITW3", step, (3, 0.03, 0.03, 0.03, 0.03), "transfer", "") for step in (120, 145, 199)],
    *[("ITW1", step, (3, 3, 3, 3, 3), "balanced", "") for step in (0, 45, 119)],
    *[("ITW1", step, (3, 0.03, 0.03, 0.03, 0.03), "transfer", "") for step in (120, 145, 199)],
    *[("MTL", step, (3, 3, 3, 3, 3), "balanced", "") for step in (0, 25, 199)],
]


def at(step: int, *, n_steps: int = N_STEPS, epoch: int = 0, n_epochs: int = 10) -> Progress:
    return Progress(step=step, n_steps=n_steps, epoch=epoch, n_epochs=n_epochs)


def cycle_mean(policy: PFLP) -> np.ndarray:
    n_steps = policy.period * len(policy.order)
    return np.mean([policy(at(step, n_steps=n_steps)).weights for step in range(n_steps)], axis=0)


@pytest.mark.parametrize(("experiment", "step", "weights", "phase", "focus"), WORKED)
def test_worked_weights_are_exact(experiment, step, weights, phase, focus):
    decision = POLICIES[experiment](at(step))

    # 1e-12 is rounding of 0.1 * 3; the smallest step between two weights of the table is 0.009
    assert decision.weights == pytest.approx(weights, rel=1e-12)
    assert (decision.phase, decision.focus) == (phase, focus)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_weights_are_finite_and_one_per_task_at_every_step(policy):
    weights = np.array([policy(at(step)).weights for step in range(N_STEPS)])  # (steps, T)

    assert weights.shape == (N_STEPS, 5)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


def test_defaults_are_those_of_a_run():
    config = RunConfig()

    assert PFLP(BW(TASKS, [3] * 5)) == PFLP(
        BW(TASKS, [3] * 5),
        factor=config.pflp_factor,
        period=config.pflp_period,
        unit=config.pflp_unit,
        order=config.pflp_order,
        keep_mean=config.pflp_keep_mean,
    )
    assert ITW(BW(TASKS, [3] * 5)) == ITW(BW(TASKS, [3] * 5), start=config.itw_start, factor=config.itw_factor)


# Periodic focusing


def test_focus_suppresses_the_central_task_too():
    decision = POLICIES["MTL2"](at(20))

    assert decision.weights[0] == pytest.approx(0.3)


def test_period_factor_and_order_are_parameters():
    policy = PFLP(BW("abc", [1, 2, 4]), factor=0.5, period=2, order=["c", "a"])

    assert [policy(at(step)).focus for step in range(6)] == ["c", "c", "a", "a", "c", "c"]
    assert policy(at(0)).weights == (0.5, 1, 4)
    assert policy(at(2)).weights == (1, 1, 2)


def test_period_in_epochs_follows_the_epoch_and_not_the_step():
    policy = PFLP(BW("abc", [1, 1, 1]), period=2, unit="epoch")

    assert [policy(at(0, epoch=epoch)).focus for epoch in range(7)] == ["a", "a", "b", "b", "c", "c", "a"]
    assert policy(at(150, epoch=0)).focus == "a"


def test_permuted_tasks_get_permuted_weights():
    forward = PFLP(BW("abc", [1, 2, 4]), order="abc")
    backward = PFLP(BW("cba", [4, 2, 1]), order="abc")

    for step in range(0, 60, 20):
        assert forward(at(step)).weights == backward(at(step)).weights[::-1]


def test_focus_on_a_single_task_changes_nothing():
    assert PFLP(BW(["lung_cancer"], [3]))(at(77)).weights == (3,)


def test_factor_one_is_balanced_weights():
    assert PFLP(BW(TASKS, BASES["MTL2"]), factor=1)(at(50)).weights == (3, 1, 1, 1, 1)


@pytest.mark.parametrize("experiment", ["MTL0", "MTL2"])
def test_five_tasks_keep_0_28_of_their_mean_weight(experiment):
    # (1 + 4 * 0.1) / 5, worked by hand
    assert cycle_mean(POLICIES[experiment]) == pytest.approx(0.28 * np.array(BASES[experiment]))


@pytest.mark.parametrize("factor", [0, 0.1, 0.7])
@pytest.mark.parametrize("weights", [(3, 3, 3, 3, 3), (3, 0.01, 0.01, 0.01, 0.01), (3, 0, 1, 6, 2)])
def test_keep_mean_keeps_every_tasks_mean_over_a_cycle(weights, factor):
    assert cycle_mean(PFLP(BW(TASKS, weights), factor=factor, keep_mean=True)) == pytest.approx(np.array(weights))


def test_keep_mean_holds_for_unequal_turns_and_tasks_without_a_turn():
    policy = PFLP(BW("abc", [3, 1, 2]), period=4, order=["a", "b", "a"], keep_mean=True)

    assert cycle_mean(policy) == pytest.approx([3, 1, 2])


def test_keep_mean_keeps_the_ratios_inside_a_step():
    plain = np.array(PFLP(BW(TASKS, BASES["MTL2"]))(at(25)).weights)
    kept = np.array(PFLP(BW(TASKS, BASES["MTL2"]), keep_mean=True)(at(25)).weights)

    assert kept / plain == pytest.approx(np.full(5, 1 / 0.28))


def test_a_shuffled_order_gives_every_task_its_turn_in_every_cycle():
    policy = PFLP(BW(TASKS, BASES["MTL2"]), period=2, shuffle_seed=0)

    orders = [tuple(policy(at(10 * cycle + 2 * turn)).focus for turn in range(5)) for cycle in range(20)]

    assert all(sorted(order) == sorted(TASKS) for order in orders)
    assert len(set(orders)) > 10
    assert policy(at(1)) == policy(at(0))


def test_the_shuffled_order_follows_its_seed_alone():
    policies = [PFLP(BW(TASKS, BASES["MTL2"]), shuffle_seed=seed) for seed in (0, 0, 1)]

    first, again, other = ([policy(at(step)).focus for step in range(200)] for policy in policies)

    assert first == again
    assert first != other


def test_keep_mean_holds_in_a_shuffled_order():
    policy = PFLP(BW(TASKS, BASES["MTL2"]), keep_mean=True, shuffle_seed=3)

    assert cycle_mean(policy) == pytest.approx(np.array(BASES["MTL2"]))


# Internal transfer


@pytest.mark.parametrize(
    ("start", "n_steps", "first"),
    [
        (0.6, 10, 6),
        (0.6, 11, 7),
        (0.5, 7, 4),
        (0.55, 100, 55),
        (0.7, 10, 7),
        (0.99, 10, 9),
        (0.01, 10, 1),
        (0.6, 1, 0),
        (0, 10, 0),
    ],
)
def test_first_transfer_step_is_the_start_rounded_up(start, n_steps, first):
    policy = ITW(BW(TASKS, BASES["ITW1"]), start=start)

    phases = [policy(at(step, n_steps=n_steps)).phase for step in range(n_steps)]

    assert phases == ["balanced"] * first + ["transfer"] * (n_steps - first)


def test_first_transfer_step_does_not_suffer_from_rounding():
    policies = {percent: ITW(BW("ab", [1, 1]), start=percent / 100) for percent in range(1, 100)}

    for n_steps in range(100, 2000, 7):
        exact = [math.ceil(Fraction(percent, 100) * n_steps) for percent in policies]
        assert [policy.first_step(n_steps) for policy in policies.values()] == exact


def test_transfer_starts_from_the_base_weights_whatever_focus_did_before():
    kept = ITW(PFLP(BW(TASKS, BASES["MTL2"]), keep_mean=True), factor=0)

    assert kept(at(199)) == Decision((3, 0, 0, 0, 0), "transfer")


def test_before_the_switch_transfer_changes_nothing():
    for step in range(120):
        assert POLICIES["ITW3"](at(step)) == PFLP(BW(TASKS, BASES["ITW3"]))(at(step))


def test_central_task_is_a_parameter():
    assert ITW(BW("abc", [1, 2, 4]), central="b", factor=0.5)(at(199)).weights == (0.5, 2, 2)


# Whole trainings


def test_timeline_has_one_row_per_step_with_the_columns_of_a_run():
    frame = timeline(POLICIES["ITW3"], n_steps=90, steps_per_epoch=40)

    assert list(frame.columns) == ["step", "epoch", "phase", "focus", *(f"weight_{task}" for task in TASKS)]
    assert frame["step"].tolist() == list(range(90))
    assert frame["epoch"].tolist() == [0] * 40 + [1] * 40 + [2] * 10
    assert frame["phase"].value_counts().to_dict() == {"focus": 54, "transfer": 36}


def test_a_timeline_does_not_guess_what_only_a_training_knows():
    frame = timeline(build(weighting(policy="ITW(PFLP(UW))")), n_steps=10, steps_per_epoch=5)

    assert frame["phase"].unique().tolist() == ["learnt"]
    assert frame.filter(like="weight_").isna().all(axis=None)


@pytest.mark.parametrize(
    ("pflp", "itw", "expected"),
    [
        (False, False, BW(TASKS, [3, 1, 1, 1, 1])),
        (True, False, PFLP(BW(TASKS, [3, 1, 1, 1, 1]), factor=0.2, period=5, unit="epoch", order=TASKS[::-1])),
        (False, True, ITW(BW(TASKS, [3, 1, 1, 1, 1]), start=0.7, factor=0.1)),
    ],
)
def test_build_composes_the_policy_that_the_flat_settings_name(pflp, itw, expected):
    assert build(weighting(pflp=pflp, itw=itw)) == expected


def weighting(**changes) -> Weighting:
    flat = {"pflp_factor": 0.2, "pflp_period": 5, "pflp_unit": "epoch", "pflp_order": list(TASKS[::-1])}
    flat |= {"itw_start": 0.7, "itw_factor": 0.1, "seed": 4}
    return Weighting(tasks=list(TASKS), weights=[3, 1, 1, 1, 1], **flat | changes)


def test_a_shuffled_order_is_seeded_by_the_run():
    assert build(weighting(pflp=True, pflp_shuffle=True)).shuffle_seed == 4


@pytest.mark.parametrize(
    ("spelling", "pflp", "itw"),
    [("BW", False, False), ("PFLP", True, False), ("ITW(BW)", False, True), ("ITW(PFLP)", True, True)],
)
def test_a_spelled_policy_is_that_of_the_flags_and_takes_its_settings_from_the_flat_keys(spelling, pflp, itw):
    assert build(weighting(policy=spelling)) == build(weighting(pflp=pflp, itw=itw))


def test_a_spelled_setting_wins_over_the_flat_key():
    policy = build(weighting(policy="ITW(PFLP(period=40, order=['copd']), start=0.5)"))

    assert (policy.start, policy.factor) == (0.5, 0.1)
    assert (policy.before.period, policy.before.order, policy.before.unit) == (40, ("copd",), "epoch")


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("PCGRAD", "A policy must be one of BW, PFLP, ITW, Alone, RLW, UW"),
        ("ITW(PFLP", "`policy` must be a call such as"),
        ("ITW(PFLP, BW)", "`policy` must be a call such as"),
        ("3", "`policy` must be a call such as"),
        ("ITW(begin=0.5)", "A setting of ITW must be one of central, factor, restart, start. Found 'begin'"),
        ("ITW(start=1.5)", "`start` of ITW must be inside"),
        ("ITW(start=print(1))", "A setting of a policy must be a plain value"),
        ("BW(PFLP)", "BW acts on no other policy"),
    ],
)
def test_a_wrong_spelling_is_refused_in_words(spelling, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(weighting(policy=spelling))


def test_a_policy_is_described_by_name_and_all_its_settings():
    described = describe(POLICIES["ITW3"])

    assert described["name"] == "ITW(PFLP(BW))"
    assert list(described["settings"]) == ["ITW", "PFLP", "BW"]
    assert described["settings"]["ITW"] == {"start": 0.6, "factor": 0.01, "central": "lung_cancer", "restart": False}
    assert described["settings"]["BW"] == {"weights": (3.0,) * 5}
    assert names("ITW(PFLP(period=2))") == ["ITW", "PFLP"]


def test_runs_that_differ_in_their_seed_have_the_same_description():
    first, second = (describe(build(weighting(pflp=True, pflp_shuffle=True, seed=seed))) for seed in (1, 2))

    assert first == second
    assert first != describe(build(weighting(pflp=True)))


# State


@dataclasses.dataclass(frozen=True)
class Counting(Policy):
    """A policy that remembers how often it was asked."""

    tasks: tuple[str, ...] = ("a", "b")
    base: tuple[float, ...] = (1.0, 1.0)
    asked: list[int] = dataclasses.field(default_factory=lambda: [0])

    def __call__(self, step):
        self.asked[0] += 1
        return Decision((float(self.asked[0]), 1.0), "counting")

    def state_dict(self):
        return {"asked": self.asked[0]}

    def load_state_dict(self, state):
        self.asked[0] = state["asked"]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_schedule_has_no_state_and_takes_none(policy):
    policy.load_state_dict(policy.state_dict())
    with pytest.raises(ValueError, match="The state of"):
        policy.load_state_dict({"asked": 1})


def test_stop_and_go_equals_straight_through_also_inside_another_policy():
    straight, first, second = (ITW(Counting(), start=0.9) for _ in range(3))
    weights = [straight(at(step)).weights for step in range(10)]

    stopped = [first(at(step)).weights for step in range(4)]
    second.load_state_dict(first.state_dict())
    resumed = [second(at(step)).weights for step in range(4, 10)]

    assert stopped + resumed == weights


def test_the_final_stage_asks_for_a_restart_at_its_first_step_alone():
    policy = ITW(BW("ab", [1, 1]), start=0.6, restart=True)

    assert [step for step in range(N_STEPS) if policy(at(step)).restart] == [120]
    assert not any(POLICIES["ITW1"](at(step)).restart for step in range(N_STEPS))


def test_a_step_is_a_progress_with_what_the_batch_has_shown():
    step = Step(step=1, n_steps=2, epoch=0, n_epochs=1, losses=[0.5, 0.0], known=[True, False])

    assert isinstance(step, Progress)
    assert step.gramian is None
    assert BW("ab", [1, 1])(step) == Decision((1.0, 1.0), "balanced")


def test_weighting_works_where_each_scan_is_labelled_for_one_task_only():
    known = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=bool)  # (B, T), nobody knows the third task
    scan_losses = np.array([[0.2, 9, 9], [9, 0.5, 9], [9, 0.7, 9], [0.4, 9, 9]])  # (B, T), 9 where unknown
    task_losses = (scan_losses * known).sum(0) / known.sum(0).clip(min=1)  # (T,)

    weights = PFLP(BW("abc", [3, 1, 1]))(at(20)).weights

    # by hand: 0.3 * mean(0.2, 0.4) + 1 * mean(0.5, 0.7) + 0.1 * 0
    assert np.dot(weights, task_losses) == pytest.approx(0.69)


def test_policies_import_without_torch_and_the_rest_of_the_package():
    code = "import sys; from lungmtl.policies import BW, ITW, PFLP, Step, build; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout.split()

    ours = {name for name in loaded if name.split(".")[0] == "lungmtl"} - {"lungmtl", "lungmtl.lazy"}
    assert {name.split(".")[1] for name in ours} == {"policies"}
    assert not {"torch", "numpy", "pandas"} & set(loaded)


# Bad settings


@pytest.mark.parametrize("start", [-0.1, 1, 1.5, math.nan])
def test_itw_refuses_a_start_outside_0_to_1(start):
    with pytest.raises(ValueError, match=r"`start` of ITW must be inside \[0, 1\). Found"):
        ITW(BW("ab", [1, 1]), start=start)


@pytest.mark.parametrize("factor", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("policy", [PFLP, ITW])
def test_factor_outside_0_to_1_is_refused(policy, factor):
    with pytest.raises(ValueError, match=r"`factor` must be inside \[0, 1\]. Found"):
        policy(BW("ab", [1, 1]), factor=factor)


@pytest.mark.parametrize("period", [0, -20, 1.5, math.inf])
def test_period_below_one_is_refused(period):
    with pytest.raises(ValueError, match=r"`period` must be 1, 2, 3"):
        PFLP(BW("ab", [1, 1]), period=period)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PFLP(BW("ab", [1, 1]), unit="batch"), "`unit` must be step or epoch. Found 'batch'"),
        (lambda: PFLP(BW("ab", [1, 1]), order=["a", "copd"]), r"`order` must be names from \('a', 'b'\). .*'copd'"),
        (lambda: PFLP(BW("ab", [1, 1]), order="a", factor=0, keep_mean=True), "`keep_mean` must have a turn"),
        (lambda: ITW(BW("ab", [1, 1]), central="copd"), r"`central` must be a name from \('a', 'b'\)"),
        (lambda: BW("abc", [1, 1]), r"`weights` must be one per task, 3 in all. Found \(1.0, 1.0\)"),
        (lambda: BW("ab", [1, -1]), "`weights` must be at least 0, finite, and not all 0"),
        (lambda: BW("ab", [0, 0]), "`weights` must be at least 0, finite, and not all 0"),
        (lambda: BW("ab", [1, math.inf]), "`weights` must be at least 0, finite, and not all 0"),
        (lambda: BW("aa", [1, 1]), "`tasks` must be different names"),
        (lambda: BW("", []), "`tasks` must be different names"),
        (lambda: Progress(10, 10, 0, 1), "`step` must be inside 0 .. n_steps - 1"),
        (lambda: Progress(5, 10, 1, 1), "`epoch` must be inside 0 .. n_epochs - 1"),
    ],
)
def test_bad_settings_are_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()
