"""Loss and gradient rules: their defining properties on hard inputs, pinned rows, the papers' formulas, no labels."""

import builtins
import itertools
import json
import math
import re
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torchjd import aggregation, scalarization

from lungmtl.policies import BW, ITW, PFLP, Seen, Step, gramian
from lungmtl.policies.catalogue import POLICIES, Weighting, build, describe, find
from lungmtl.study.config import read_params
from lungmtl.study.plan import plan_runs

ROOT = Path(__file__).parents[1]

TASKS = ("central", "first", "second", "third")
SCHEDULES = ("BW", "PFLP", "ITW", "Alone")
MISSING_SOLVER = () if find_spec("cvxpy") else ("CAGrad",)  # CVXPY is no dependency
RULES = [name for name in POLICIES if name not in (*SCHEDULES, *MISSING_SOLVER)]
GRADIENT_RULES = [name for name in RULES if "at" in find(name).__dataclass_fields__]
LOSS_RULES = [name for name in RULES if name not in GRADIENT_RULES]
TUNED = read_params(ROOT / "params" / "tuned.yaml")["experiments"]
WITHOUT_TRIALS = [name for name in TUNED if not name.endswith(".*") and name != "STL"]
LOSSES = (0.7, 0.5, 1.2, 0.3)
ROWS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ALIKE = ROWS + 1  # gradients that mostly agree
HARD = {
    "plain": ROWS,
    "alike": ALIKE,
    "one without gradient": ROWS * torch.tensor([[1.0], [0], [1], [1]]),
    "no gradient": 0 * ROWS,
    "opposing": torch.stack([ROWS[0], -ROWS[0], ROWS[1], -ROWS[1]]),
    "collinear": torch.stack([ROWS[0], 2 * ROWS[0], 3 * ROWS[0], ROWS[0]]),
    "scales": ROWS * torch.tensor([[1e-6], [1], [1e3], [1e6]]),
    "short": 1e-8 * ROWS,
}


def policy(spelling, weights=(1, 1, 1, 1), **changes):
    return build(Weighting(tasks=TASKS, weights=weights, policy=spelling, **changes))


def ask(rule, rows=ROWS, *, losses=LOSSES, known=(True,) * 4, step=3, epoch=0):
    """Weights of one step; rows are the gradients of the tasks, (T, P)."""
    known = torch.tensor(known)
    products = (rows @ rows.T) * known * known[:, None]
    losses = torch.tensor(losses, dtype=torch.float64) * known
    return rule(Step(step, 100, epoch, 10, losses=losses, known=known, gramian=products, ahead=ahead(products))).weights


def ahead(products):
    """`Step.ahead` where the other batch has the gradient of this one, at a learning rate of 0.1."""
    return lambda weights: -0.1 * products[0] + 0 * torch.tensor(weights)


def weighed(name, rows, **settings):
    """What the rule itself says of these gradients, before weights below 0 are set to 0."""
    rule = find(name)(TASKS[: len(rows)], [1] * len(rows), **settings)
    seen = Seen(list(range(len(rows))), list(LOSSES[: len(rows)]), (rows @ rows.T).tolist(), Step(3, 100, 0, 10))
    return torch.tensor(rule.weigh(seen), dtype=torch.float64)


# All rules


@pytest.mark.parametrize("rows", HARD.values(), ids=HARD)
@pytest.mark.parametrize("name", RULES)
def test_weights_are_finite_and_not_negative_on_hard_gramians(name, rows):
    rule = policy(name)
    for step in range(3):
        weights = ask(rule, rows, losses=(1e-9, 0.0, 1e3, 0.7), step=step)
        assert len(weights) == 4
        assert all(0 <= weight < math.inf for weight in weights)


@pytest.mark.parametrize("name", RULES)
def test_a_task_without_a_label_leaves_the_step_and_the_central_task_moves_where_it_has_one(name):
    rule = policy(name)
    for step, known in enumerate(itertools.product([True, False], repeat=4)):
        weights = ask(rule, ALIKE / ALIKE.norm(dim=1, keepdim=True), known=known, step=step)
        assert all(math.isfinite(weight) for weight in weights)
        assert [weight for weight, is_known in zip(weights, known, strict=True) if not is_known] == [0] * known.count(
            False
        )
        assert weights[0] > 0 or not known[0]


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("RLW", "PCGrad", "GradVac")])  # which draw
def test_the_other_tasks_are_weighed_as_if_the_one_without_a_label_were_not_there(name):
    few = find(name)(TASKS[:3], [1, 1, 1])
    products = ALIKE[:3] @ ALIKE[:3].T
    step = Step(3, 100, 0, 10, losses=LOSSES[:3], known=[True] * 3, gramian=products, ahead=ahead(products))
    alone = few(step).weights
    assert ask(policy(name), ALIKE, known=(True, True, True, False)) == pytest.approx((*alone, 0), rel=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_stop_and_go_equals_straight_through_through_json_and_with_missing_labels(name):
    generator = torch.Generator().manual_seed(1)
    straight, current, found = policy(name, seed=5), policy(name, seed=5), []
    for step in range(40):
        rows = torch.randn(4, 6, generator=generator, dtype=torch.float64) + 0.3
        losses = torch.rand(4, generator=generator).tolist()
        known = (torch.rand(4, generator=generator) < 0.7).tolist()
        options = {"losses": losses, "known": known, "step": step, "epoch": step // 10}
        fresh = policy(name, seed=5)
        fresh.load_state_dict(json.loads(json.dumps(current.state_dict())))
        current = fresh
        found.append((ask(straight, rows, **options), ask(current, rows, **options)))
    assert all(one == other for one, other in found)
    assert len({one for one, _ in found}) > 1


@pytest.mark.parametrize("name", RULES)
def test_a_state_of_another_policy_is_refused(name):
    with pytest.raises(ValueError, match=f"The state of {name} must have"):
        policy(name).load_state_dict({"asked": 1})


@pytest.mark.parametrize("name", RULES)
def test_a_state_is_a_copy(name):
    rule = policy(name)
    state = rule.state_dict()
    before = json.dumps(state)
    for step in range(6):
        ask(rule, step=step, epoch=step)
    assert json.dumps(state) == before


@pytest.mark.parametrize("name", RULES)
def test_what_a_rule_draws_is_no_part_of_the_global_generator(name):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ask(policy(name))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", RULES)
def test_base_weights_scale_losses_and_gradients_before_the_rule_sees_them(name):
    base = (2.0, 0.5, 1.0, 3.0)
    scaled = [weight * loss for weight, loss in zip(base, LOSSES, strict=True)]
    factors = ask(policy(name), torch.tensor(base, dtype=torch.float64)[:, None] * ROWS, losses=scaled)
    assert ask(policy(name, base)) == pytest.approx([w * f for w, f in zip(base, factors, strict=True)])


@pytest.mark.parametrize("name", RULES)
def test_a_task_with_a_base_weight_of_0_takes_no_part(name):
    weights = ask(policy(name, (1, 1, 1, 0)), ALIKE)
    assert weights[3] == 0
    assert name in ("RLW", "PCGrad", "GradVac") or weights == pytest.approx(
        ask(policy(name), ALIKE, known=(True, True, True, False))
    )


@pytest.mark.parametrize("name", GRADIENT_RULES)
def test_gradients_are_taken_at_the_features_unless_it_says_parameters(name):
    assert policy(name).needs_gradients == "features"
    assert policy(f"{name}(at='parameters')").gradients_at(Step(0, 1, 0, 1)) == "parameters"
    with pytest.raises(ValueError, match=r"`at` must be features or parameters\. Found 'heads'"):
        policy(f"{name}(at='heads')")


@pytest.mark.parametrize("name", GRADIENT_RULES)
def test_a_gradient_rule_without_a_gramian_says_so(name):
    with pytest.raises(ValueError, match=f"{name} must be given the Gramian at the shared features"):
        policy(name)(Step(0, 1, 0, 1, losses=LOSSES))


def test_a_rule_without_losses_says_so():
    with pytest.raises(ValueError, match=r"UW must be given one loss per task, 4\. Found \[\]"):
        policy("UW")(Step(0, 1, 0, 1))


@pytest.mark.parametrize("known", [[True] * 3, torch.eye(4).bool()])
def test_known_is_of_tasks_and_not_of_scans(known):
    with pytest.raises(ValueError, match=r"`known` that UW is given must be one value per task, 4\. Found"):
        policy("UW")(Step(0, 1, 0, 1, losses=LOSSES, known=known))


def test_numbers_that_are_not_finite_are_refused_and_not_taken_for_no_gradient():
    with pytest.raises(ValueError, match="The losses that UW is given must be finite"):
        ask(policy("UW"), losses=(math.nan, 1, 1, 1))
    with pytest.raises(ValueError, match="GCS must be given the Gramian at the shared features, all finite"):
        ask(policy("GCS"), ROWS * math.inf)


def test_a_rule_says_what_is_not_installed(monkeypatch):
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torchjd"):
            raise ImportError("No module named 'torchjd'")
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"MGDA must have TorchJD 0\.18 \(`pip install lungmtl\[policies\]`\)"):
        ask(policy("MGDA"))


def test_a_rule_names_the_solver_that_is_missing(monkeypatch):
    monkeypatch.setattr("torchjd._mixins.find_spec", lambda name: None if name == "cvxpy" else name)
    with pytest.raises(ImportError, match=r"CAGrad must have .* Found: CAGradWeighting requires \['cvxpy'\]"):
        ask(policy("CAGrad"))


# Composition


@pytest.mark.parametrize("name", RULES)
def test_any_rule_is_a_warm_up_and_the_final_stage_asks_for_no_gradients(name):
    composed, alone = policy(f"ITW({name}, start=0.5)"), policy(name)
    assert ask(composed, step=49) == ask(alone, step=49)
    assert composed.gradients_at(Step(49, 100, 0, 1)) == alone.needs_gradients
    assert ask(composed, step=50) == (1, 0.01, 0.01, 0.01)
    assert composed.gradients_at(Step(50, 100, 0, 1)) == ""


@pytest.mark.parametrize("name", RULES)
def test_focus_multiplies_the_weights_of_any_rule(name):
    focused = ask(policy(f"PFLP({name}, period=2)"), step=3)
    expected = [w * f for w, f in zip(ask(policy(name), step=3), (0.1, 1, 0.1, 0.1), strict=True)]
    assert focused == pytest.approx(expected)
    assert not policy(f"PFLP({name})").is_schedule


def test_the_state_inside_two_others_is_kept():
    first, second = policy("ITW(PFLP(UW))"), policy("ITW(PFLP(UW))")
    ask(first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert ask(second, step=4) == ask(first, step=4) != ask(policy("ITW(PFLP(UW))"), step=4)


def test_focus_on_top_of_transfer_keeps_its_restart():
    composed = PFLP(ITW(BW("ab", [1, 1]), start=0.5, restart=True), period=1)
    decision = composed(Step(50, 100, 0, 1))
    assert decision.restart
    assert decision.weights == (1, 0.001)


def test_a_rule_is_described_by_name_and_settings():
    assert describe(policy("ITW(PCGrad(at='parameters'))"))["settings"]["PCGrad"] == {
        **{"weights": (1.0,) * 4, "at": "parameters", "seed": True}
    }


def test_a_policy_is_added_as_the_page_says(monkeypatch, tmp_path):
    page = (ROOT / "lungmtl" / "policies" / "ADDING.md").read_text(encoding="utf-8")
    module = types.ModuleType("lungmtl.policies.worst")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], module.__dict__)
    monkeypatch.setitem(POLICIES, "Worst", "worst")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "Worst.yaml").write_text("policy: Worst(temperature=1)", encoding="utf-8")
    (tmp_path / "own.yaml").write_text("experiments: [Worst]\nseeds: [0]", encoding="utf-8")
    (run,) = plan_runs(tmp_path / "own.yaml")
    step = Step(0, 9, 0, 1, losses=[0.7, 0.5, 0, 0, 0], known=[True, True, False, False, False])
    weights = build(run.weighting)(step).weights
    assert weights[0] / weights[1] == pytest.approx(math.exp(3 * (0.7 - 0.5)))  # base weights of 3
    assert weights[2:] == (0, 0, 0)


@pytest.mark.parametrize("name", WITHOUT_TRIALS)
def test_a_rule_without_trials_is_blind_to_base_weights(name):
    rows = torch.eye(4, 6, dtype=torch.float64) + 0.1 * ROWS  # where no weight would be below 0
    one, other = (ask(policy(name, weights), rows) for weights in ((1, 1, 1, 1), (2, 0.5, 1, 3)))
    assert min(one) > 0
    assert [w / other[0] for w in other] == pytest.approx([w / one[0] for w in one])


# Pinned rows

PINNED = {  # in the fourth step, losses falling at different rates, an epoch a step
    "RLW": (0.362931, 0.109458, 0.050906, 0.476705),
    "UW": (0.515214, 0.515161, 0.501433, 0.515208),
    "DWA": (1.209434, 1.023764, 0.916104, 0.850697),
    "IMTLL": (1.030428, 1.030323, 1.002867, 1.030416),
    "GeometricMean": (0.026598, 0.148947, 0.248246, 3.971928),
    "FAMO": (0.00694, 0.038849, 0.056113, 0.898099),
    "GCS": (1, 1, 1, 1),
    "OLAUX": (1, 1, 1, 1),
    "AutoLambda": (0.112, 0.112, 0.112, 0.112),
    "GradNorm": (0.969508, 1.0387, 0.995896, 0.995896),
    "DBMTL": (154.503842, 214.155824, 209.362623, 213.333333),
    "MGDA": (0.166773, 0.033657, 0.409461, 0.39011),
    "PCGrad": (1, 1, 1.044326, 1.046023),
    "IMTLG": (0.253432, 0, 0.460993, 0.58099),
    "AlignedMTL": (0.06129, 0.035092, 0.094404, 0.092396),
    "ConFIG": (1.006946, 0, 1.831634, 2.308411),
    "GradVac": (1, 1, 1.00555, 1.005763),
    "PCD": (1, 0, 0, 0),
    "UPGrad": (0.25, 0.25, 0.261081, 0.261506),
    "CAGrad": (0.25, 0.25, 0.50796, 0.372097),
    "FairGrad": (0.274601, 0.263552, 0.395153, 0.332378),
}


def test_every_rule_has_a_pinned_row():
    assert set(PINNED) == {*RULES, *MISSING_SOLVER}


@pytest.mark.parametrize("name", RULES)
def test_pinned_rows(name):
    rule = policy(name)
    for step in range(4):
        weights = ask(rule, step=step, epoch=step, losses=[loss / (step + 1) ** k for k, loss in enumerate(LOSSES)])
    assert weights == pytest.approx(PINNED[name], abs=1e-6)


# Loss rules against TorchJD, whose optimisers and autograd have no line in common with ours

CURVES = [[loss * 0.9 ** (step * k) + 0.05 * ((step * k) % 3) for k, loss in enumerate(LOSSES)] for step in range(30)]


def slopes(scalarizer, losses):
    losses = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    total = scalarizer(losses)
    total.backward()
    return losses.grad.tolist()


@pytest.mark.parametrize(("name", "reference"), [("UW", scalarization.UW), ("IMTLL", scalarization.IMTLL)])
def test_learnt_weights_are_those_of_torchjd_with_adam_in_the_loop(name, reference):
    rule, scalarizer = policy(f"{name}(learning_rate=0.05)"), reference(4).double()
    optimiser = torch.optim.Adam(scalarizer.parameters(), lr=0.05)
    for step, losses in enumerate(CURVES):
        optimiser.zero_grad()
        assert ask(rule, losses=losses, step=step) == pytest.approx(slopes(scalarizer, losses), rel=1e-9)
        optimiser.step()


@pytest.mark.parametrize(("name", "share"), [("UW", 0.5), ("IMTLL", 1.0)])
def test_learnt_weights_end_where_every_weighted_loss_is_the_same(name, share):
    rule = policy(f"{name}(learning_rate=0.05)")
    for step in range(100):
        weights = ask(rule, step=step)
    assert [w * loss for w, loss in zip(weights, LOSSES, strict=True)] == pytest.approx([share] * 4, rel=0.02)


def test_famo_is_that_of_torchjd_told_the_next_batch():
    rule, scalarizer = policy("FAMO"), scalarization.FAMO(4).double()
    for step, losses in enumerate(CURVES):
        if step:
            scalarizer.update(torch.tensor(losses, dtype=torch.float64))
        # TorchJD adds 1e-8 to every loss, of which the smallest is 3e-5
        assert ask(rule, losses=losses, step=step) == pytest.approx(slopes(scalarizer, losses), rel=1e-3)


def test_famo_gives_more_to_the_task_that_fell_less():
    rule = policy("FAMO")
    ask(rule, losses=(1, 1, 1, 1))
    weights = ask(rule, losses=(0.5, 1, 0.5, 0.5), step=4)
    shares = [w * loss for w, loss in zip(weights, (0.5, 1, 0.5, 0.5), strict=True)]  # in proportion to the softmax
    assert shares[1] > shares[0] == pytest.approx(shares[2])
    assert sum(weights) == pytest.approx(1)


def test_dynamic_weight_average_is_that_of_torchjd():
    rule, scalarizer = policy("DWA"), scalarization.DWA()
    for step, losses in enumerate(CURVES):
        if step and step % 5 == 0:
            scalarizer.step()
        assert ask(rule, losses=losses, step=step, epoch=step // 5) == pytest.approx(slopes(scalarizer, losses))


def test_the_geometric_mean_is_that_of_torchjd_and_all_weighted_losses_are_the_same():
    weights = ask(policy("GeometricMean"))
    assert weights == pytest.approx(slopes(scalarization.GeometricMean(), LOSSES))
    weighted = [w * loss for w, loss in zip(weights, LOSSES, strict=True)]
    assert weighted == pytest.approx([weighted[0]] * 4)


def test_random_weights_sum_to_1_and_favour_no_task():
    weights = np.array([ask(policy("RLW", seed=1), step=step) for step in range(100)])
    many = np.array([ask(policy("RLW", seed=seed), step=9) for seed in range(1000)])
    assert weights.sum(axis=1) == pytest.approx(np.ones(100))
    assert len(np.unique(weights[:, 0])) == 100
    assert many.mean(axis=0) == pytest.approx([0.25] * 4, abs=0.02)  # three standard errors of 0.19 / sqrt(1000)


# Gradient rules against the papers' formulas, in float64


def test_the_cosine_gate_shuts_out_who_opposes_the_central_task():
    rows = torch.tensor([[1.0, 0], [-0.1, 5], [0, 2], [3, 4]], dtype=torch.float64)
    assert weighed("GCS", rows).tolist() == [1, 0, 1, 1]
    assert weighed("GCS", rows, weighted=True).tolist() == pytest.approx([1, 0, 0, 0.6])


def test_auxiliary_weights_move_by_the_sum_of_cosines_every_horizon():
    rows = torch.tensor([[1.0, 0], [-4, 3], [3, 4], [0, 2]], dtype=torch.float64)  # cosines -0.8, 0.6 and 0
    rule = policy("OLAUX(learning_rate=0.1, horizon=5)")
    weights = [ask(rule, rows, step=step) for step in range(11)]
    assert weights[4] == (1, 1, 1, 1)
    assert weights[5] == weights[9] == pytest.approx((1, 0.6, 1.3, 1))
    assert weights[10] == pytest.approx((1, 0.2, 1.6, 1))


@pytest.mark.parametrize("name", ["GCS", "OLAUX"])
def test_without_a_central_label_the_auxiliary_tasks_keep_their_weights(name):
    rule = policy(name)
    assert [ask(rule, known=(False, True, True, True), step=step) for step in range(8)] == [(0, 1, 1, 1)] * 8


def test_gradnorm_is_adam_on_the_papers_loss():
    rule, learnt, first = policy("GradNorm"), torch.ones(4, dtype=torch.float64, requires_grad=True), CURVES[0]
    optimiser, norms = torch.optim.Adam([learnt], lr=0.025), ROWS.norm(dim=1)
    for step, losses in enumerate(CURVES):
        assert ask(rule, losses=losses, step=step) == pytest.approx(learnt.tolist(), rel=1e-6)
        rates = torch.tensor(losses, dtype=torch.float64) / torch.tensor(first, dtype=torch.float64)
        scaled = learnt * norms
        target = (scaled.mean() * (rates / rates.mean()) ** 1.5).detach()
        optimiser.zero_grad()
        (scaled - target).abs().sum().backward()
        optimiser.step()
        with torch.no_grad():
            learnt *= 4 / learnt.sum()


def test_dual_balancing_makes_all_gradients_as_long_as_the_longest_of_the_logarithms():
    lengths = weighed("DBMTL", ROWS) * ROWS.norm(dim=1)
    longest = (ROWS.norm(dim=1) / torch.tensor(LOSSES)).max().item()
    assert lengths.tolist() == pytest.approx([longest] * 4)


def test_weights_descend_the_central_loss_of_another_batch_after_the_step_that_they_give():
    target = torch.tensor([1.0, 1, 0, 0, 0, 0], dtype=torch.float64)  # what lowers the other batch's loss
    start = torch.zeros(6, dtype=torch.float64)

    def central(weights):
        return (start - 0.1 * (weights @ ROWS) - target).square().sum()

    def told(weights):
        weights = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(central(weights), weights)[0]

    rule = policy("AutoLambda(learning_rate=0.02)")
    learnt = torch.full((4,), 0.1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([learnt], lr=0.02)
    for step in range(100):
        weights = rule(Step(step, 100, 0, 1, losses=LOSSES, ahead=told)).weights
        optimiser.zero_grad()
        central(learnt).backward()
        optimiser.step()
        with torch.no_grad():
            learnt.clamp_(min=0)
        assert weights == pytest.approx(learnt.tolist(), rel=1e-6)
    assert central(torch.tensor(weights, dtype=torch.float64)) < central(torch.full((4,), 0.1, dtype=torch.float64))


def test_weights_stay_where_the_other_batch_has_no_label_of_the_central_task():
    rule = policy("AutoLambda")
    assert ask(rule, 0 * ROWS) == (0.1,) * 4
    assert rule.state_dict()["adam"]["count"] == [0] * 4


def test_a_bilevel_rule_says_what_it_must_be_given():
    with pytest.raises(ValueError, match="AutoLambda must be given `ahead`, which tries a step"):
        policy("AutoLambda")(Step(0, 1, 0, 1, losses=LOSSES))
    with pytest.raises(ValueError, match="The slopes that AutoLambda is given must be finite"):
        policy("AutoLambda")(Step(0, 1, 0, 1, losses=LOSSES, ahead=lambda weights: [math.nan] * 4))


def test_mgda_opposes_no_task_and_is_the_shortest_combination():
    weights = weighed("MGDA", ROWS)
    step = weights @ ROWS
    assert weights.sum().item() == pytest.approx(1)
    assert (ROWS @ step >= step @ step * 0.98).all()  # the solver stops at steps of 0.001
    assert weighed("MGDA", torch.tensor([[1.0, 0], [0, 2]])).tolist() == pytest.approx([0.8, 0.2], abs=1e-3)


def test_gradient_surgery_projects_out_what_opposes():
    one, other = torch.tensor([[1.0, 0], [-1, 2]], dtype=torch.float64)
    expected = one - (one @ other) / (other @ other) * other + other - (one @ other) / (one @ one) * one
    rows = torch.stack([one, other])
    assert weighed("PCGrad", rows) @ rows == pytest.approx(expected)
    assert weighed("PCGrad", ALIKE.abs()).tolist() == [1] * 4


def test_the_order_of_projections_is_drawn_anew_in_every_step():
    rows = HARD["opposing"] + 0.1 * ROWS
    rule = policy("PCGrad", seed=2)
    assert ask(rule, rows, step=1) == ask(rule, rows, step=1)
    assert len({ask(rule, rows, step=step) for step in range(8)}) > 2


def test_impartial_gradients_have_equal_projections_and_are_those_of_the_paper():
    weights = weighed("IMTLG", ALIKE)
    units = ALIKE / ALIKE.norm(dim=1, keepdim=True)
    assert units @ (weights @ ALIKE) == pytest.approx((units @ (weights @ ALIKE))[:1].expand(4))
    gaps, turns = ALIKE[:1] - ALIKE[1:], units[:1] - units[1:]  # the paper's D and U
    others = ALIKE[0] @ turns.T @ torch.linalg.inv(gaps @ turns.T)
    assert weights == pytest.approx(torch.cat([1 - others.sum()[None], others]))


def test_aligned_gradients_are_those_of_the_papers_singular_values():
    left, values, right = torch.linalg.svd(ROWS, full_matrices=False)
    assert weighed("AlignedMTL", ROWS) @ ROWS == pytest.approx(0.25 * values[-1] * (left @ right).sum(dim=0))


def test_conflict_free_step_has_equal_cosines_and_is_that_of_torchjd():
    step = weighed("ConFIG", ROWS) @ ROWS
    cosines = ROWS @ step / ROWS.norm(dim=1)
    assert cosines == pytest.approx(cosines[:1].expand(4))
    assert step == pytest.approx(aggregation.ConFIG()(ROWS))


def test_gradient_vaccine_is_the_papers_algorithm_for_two_tasks():
    generator, rule, average = torch.Generator().manual_seed(2), find("GradVac")(["a", "b"], [1, 1]), np.zeros(2)
    for step in range(10):
        rows = torch.randn(2, 3, generator=generator, dtype=torch.float64).numpy()
        changed = rows.copy()
        for i, j in ((0, 1), (1, 0)):
            lengths = np.linalg.norm(rows[i]), np.linalg.norm(rows[j])
            cosine = rows[i] @ rows[j] / np.prod(lengths)
            if cosine < average[i]:
                sine, wanted = math.sqrt(1 - cosine**2), math.sqrt(1 - average[i] ** 2)
                changed[i] += lengths[0] * (average[i] * sine - cosine * wanted) / (lengths[1] * wanted) * rows[j]
            average[i] = (average[i] + cosine) / 2
        weights = rule(Step(step, 10, 0, 1, losses=[1, 1], gramian=rows @ rows.T)).weights
        assert np.array(weights) @ rows == pytest.approx(changed.sum(axis=0), rel=1e-6)


def test_priority_constrained_descent_is_that_of_torchjd_in_every_step():
    rule, reference = policy("PCD(tau=0.3)"), aggregation.PCDWeighting(tau=0.3)
    generator = torch.Generator().manual_seed(3)
    for step in range(10):
        rows = torch.randn(4, 6, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [3], [0.1], [1]])
        assert ask(rule, rows, step=step) == pytest.approx(reference(rows @ rows.T).tolist(), rel=1e-6, abs=1e-9)


def test_priority_constrained_descent_keeps_the_central_length_and_lets_all_others_gain():
    step = weighed("PCD", ROWS, tau=0.2) @ ROWS
    assert step.norm() == pytest.approx(ROWS[0].norm())
    free = find("PCD")(TASKS, [1] * 4, tau=0.0)
    plain = torch.tensor(ask(free, ROWS), dtype=torch.float64) @ ROWS
    assert (ROWS @ step > 0).all()
    assert (ROWS @ plain > -1e-6).all()


def test_the_average_of_a_task_counts_the_steps_that_have_a_label_of_it():
    rule, seldom = policy("PCD(tau=0.3)"), policy("PCD(tau=0.3)")
    ask(rule, ROWS, step=0)
    for step in range(3):
        ask(seldom, ROWS, known=(True, True, True, step == 0), step=step)
    assert seldom.state["square"] == pytest.approx(rule.state["square"])
    assert seldom.state["count"] == [3, 3, 3, 1]


def test_without_a_central_label_priority_constrained_descent_takes_no_step():
    assert ask(policy("PCD"), known=(False, True, True, True)) == (0, 0, 0, 0)


def test_unconflicting_projection_is_that_of_all_active_sets_and_opposes_no_task():
    rows = ROWS - 0.3 * ROWS[0]
    products = (rows @ rows.T).numpy()
    expected = sum(projected(np.eye(4)[k] / 4, products) for k in range(4))
    weights = weighed("UPGrad", rows).numpy()
    assert weights == pytest.approx(expected, abs=1e-6)
    assert (products @ weights > -1e-9).all()


def projected(least, products):
    """The v >= least with the smallest v' G v, by trying which of them lie on their limit."""
    found = []
    for limits in itertools.product([True, False], repeat=4):
        at, free = np.array(limits), ~np.array(limits)
        v = least.copy()
        v[free] = -np.linalg.solve(products[np.ix_(free, free)], products[np.ix_(free, at)] @ least[at])
        if (v >= least - 1e-12).all():
            found.append((v @ products @ v, tuple(v)))
    return np.array(min(found)[1])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_fair_weights_solve_the_papers_equation(alpha, scale):
    rows = scale * ALIKE
    weights = weighed("FairGrad", rows, alpha=alpha)
    assert rows @ rows.T @ weights == pytest.approx(weights ** (-1 / alpha), rel=1e-2)  # the solver's own tolerance


def test_conflict_averse_descent_keeps_to_its_distance_from_the_mean_gradient():
    pytest.importorskip("cvxpy")
    step = weighed("CAGrad", ROWS, c=0.4) @ ROWS
    mean = ROWS.mean(dim=0)
    assert (step - mean).norm().item() == pytest.approx(0.4 * mean.norm().item(), rel=1e-2)


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("UW(learning_rate=0)", "`learning_rate` must be positive. Found 0"),
        ("DWA(temperature=-1)", "`temperature` must be positive. Found -1"),
        ("OLAUX(horizon=0)", "`horizon` must be 1, 2, 3 .... Found 0"),
        ("OLAUX(learning_rate=-1)", "`learning_rate` must be positive"),
        ("GradNorm(alpha=-1)", "`alpha` must be at least 0"),
        ("GradNorm(learning_rate=0)", "`learning_rate` must be positive"),
        ("AutoLambda(initial=0)", "`initial` must be positive"),
        ("PCD(tau=2)", "`tau` must be inside [0, 1]"),
        ("PCD(beta=1)", "`beta` must be inside [0, 1)"),
        ("FairGrad(alpha=0)", "`alpha` of FairGrad must be positive"),
        ("UW(PFLP)", "UW acts on no other policy"),
    ],
)
def test_bad_settings_are_refused_in_words(spelling, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        policy(spelling)


# The helper for other training loops


def test_a_gramian_is_that_of_the_gradients_and_keeps_the_graph():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 3, generator=generator, requires_grad=True)
    heads = torch.randn(3, 2, generator=generator)
    losses = (features @ heads).square().mean(dim=0)
    found = gramian(losses, [features], known=torch.tensor([True, False]))
    (losses.sum()).backward()
    gradient = 2 * (features @ heads[:, 0])[:, None] * heads[:, 0] / 5
    assert found.dtype == torch.float64
    assert found.tolist() == [[pytest.approx(gradient.square().sum().item(), rel=1e-5), 0], [0, 0]]
    assert gramian(losses.detach(), [features], known=[False, False]).tolist() == [[0, 0], [0, 0]]
