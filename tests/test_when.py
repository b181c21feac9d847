"""The map: worlds with the relatedness asked for, students that differ in their weights alone, contrasts by hand."""

import dataclasses
import functools
import itertools
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from lungmtl.experiments import TASKS
from lungmtl.network import learning_rate_share
from lungmtl.policies import Step, Weighting, build, gramian
from lungmtl.when import (
    Budget,
    Cell,
    Each,
    Early,
    Together,
    World,
    ceiling,
    cells_of,
    contrast_table,
    draw_scans,
    experiment_table,
    held_out,
    look,
    predictor_table,
    projected,
    run_cell,
    run_map,
    train_students,
    with_tuned,
)

ROOT = Path(__file__).parents[1]
STL = Weighting(tasks=TASKS, weights=[3.0, 0, 0, 0, 0])
MTL = Weighting(tasks=TASKS, weights=[3.0] * 5)
FOCUS = dataclasses.replace(MTL, pflp=True)
WORLD = World(relatedness=1.0, n_scans=64)


def shared_share(relatedness: float) -> float:
    """Share of an auxiliary logit's variance that a linear reader of the central task's signs explains."""
    scans = draw_scans(World(relatedness=relatedness, n_scans=2000, label_noise=0.0), seed=1)["train"]
    truth = scans.truth.numpy()
    return np.mean([np.corrcoef(truth[:, 0], truth[:, t])[0, 1] ** 2 for t in range(1, 5)])


def test_a_seed_is_a_world_and_the_same_twice():
    first, again, other = (draw_scans(WORLD, seed=seed)["train"] for seed in (3, 3, 4))
    assert torch.equal(first.target, again.target)
    assert torch.equal(first.features, again.features)
    assert not torch.equal(first.features, other.features)


def test_logits_of_related_tasks_correlate_and_of_unrelated_ones_do_not():
    assert shared_share(0.0) < 0.005
    assert shared_share(1.0) > 0.05  # random readers of the same four signs: 1 / 4 on average


def test_who_knows_the_logits_reaches_the_ceiling_that_the_header_states():
    found = [ceiling(draw_scans(World(relatedness=0.5, n_scans=40), seed=seed)["test"]) for seed in range(40)]
    assert np.mean(found) == pytest.approx(0.955, abs=0.015)


def test_one_label_per_scan_leaves_each_task_a_fifth_of_the_training_scans_and_all_others_whole():
    scans = draw_scans(dataclasses.replace(WORLD, n_scans=100, one_label=True), seed=0)
    assert scans["train"].known.sum(dim=1).tolist() == [1] * 100
    assert scans["train"].known.sum(dim=0).tolist() == [20] * 5
    assert scans["test"].known.all()


def test_label_noise_is_that_of_the_auxiliary_tasks_alone():
    clean, noisy = (draw_scans(World(relatedness=0.0, n_scans=4000, label_noise=share), seed=0) for share in (0.0, 0.3))
    changed = (clean["train"].target != noisy["train"].target).float().mean(dim=0)
    assert changed[0] == 0
    assert changed[1:].tolist() == pytest.approx([0.3] * 4, abs=0.03)


def test_a_student_does_not_depend_on_those_that_are_trained_next_to_it():
    scans, budget = [draw_scans(WORLD, seed=seed) for seed in (0, 1)], Budget(n_steps=12)
    of = {name: [build(one)] * 2 for name, one in {"STL": STL, "MTL": MTL, "FOCUS": FOCUS}.items()}
    alone = train_students([of["FOCUS"]], scans, budget, seed=0)["test"][0]
    among = train_students([of["STL"], of["FOCUS"], of["MTL"]], scans, budget, seed=0)["test"][1]
    torch.testing.assert_close(alone, among, rtol=0, atol=1e-6)


def test_tasks_without_weight_change_nothing_for_the_central_one():
    scans, budget = [draw_scans(WORLD, seed=0)], Budget(n_steps=12)
    single = build(Weighting(tasks=TASKS[:1], weights=[3.0]))
    aucs = train_students([[single], [build(STL)]], scans, budget, seed=0)["test"]
    assert aucs[0] == aucs[1]


def test_a_restart_is_a_fresh_optimiser_at_that_step():
    """With a first stage of no weight at all, a restarted student equals one that begins there, in AdamW's moments."""
    scans = [draw_scans(WORLD, seed=0)]
    budget = Budget(n_steps=20, weight_decay=0.0)
    begun = dataclasses.replace(MTL, itw=True, itw_start=0.5, itw_factor=0.0, itw_restart=True)
    carried = dataclasses.replace(begun, itw_restart=False)
    aucs = train_students([[build(begun)], [build(carried)]], scans, budget, seed=0)["train"]
    assert aucs[0] != aucs[1]


def test_more_steps_teach_the_single_task():
    scans = [draw_scans(World(relatedness=0.0, n_scans=640), seed=seed) for seed in range(2)]
    short, long = (train_students([[build(STL)] * 2], scans, Budget(n_steps=n), seed=0)["test"] for n in (80, 800))
    assert (long > short).all()
    assert long.mean() > 0.72


def test_a_student_learns_as_one_of_torch_alone_does():
    """The same start, batches and schedule with torch's own layers, AdamW and scheduler give the same scores."""
    scans, budget = draw_scans(WORLD, seed=0), Budget(n_steps=20, batch_size=16)
    ours = train_students([[build(FOCUS)]], [scans], budget, seed=0)["test"]
    assert ours.item() == pytest.approx(plainly_trained(scans, budget, build(FOCUS)), abs=1e-5)


def plainly_trained(scans: dict, budget: Budget, policy) -> float:
    """Test AUC of the central task of one network that is trained in an ordinary loop."""
    generator = torch.Generator().manual_seed(0)
    features, target = scans["train"].features, scans["train"].target
    network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5))
    for layer, n_in in ((network[0], 64), (network[2], 32)):
        for parameter in (layer.weight, layer.bias):
            shape = parameter.T.shape if parameter.dim() == 2 else (1, *parameter.shape)
            start = (2 * torch.rand(*shape, generator=generator) - 1) * n_in**-0.5
            parameter.data = start.T.contiguous() if parameter.dim() == 2 else start[0]
    optimiser = torch.optim.AdamW(network.parameters(), budget.learning_rate, weight_decay=budget.weight_decay)
    share = functools.partial(learning_rate_share, n_steps=budget.n_steps, warmup=budget.warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
    positive = (1 - target).sum(dim=0) / target.sum(dim=0)
    for step in range(budget.n_steps):
        if step % 4 == 0:
            order = torch.randperm(64, generator=generator)
        rows = order[step % 4 * 16 : step % 4 * 16 + 16]
        volume = features[rows] + 0.3 * torch.randn(16, 64, generator=generator)
        options = {"pos_weight": positive, "reduction": "none"}
        losses = binary_cross_entropy_with_logits(network(volume), target[rows], **options).mean(dim=0)
        weights = policy(Step(step, budget.n_steps, epoch=step // 4, n_epochs=5)).weights
        optimiser.zero_grad()
        (losses * torch.tensor(weights)).sum().backward()
        optimiser.step()
        schedule.step()
    return roc_auc_score(scans["test"].target[:, 0], network(scans["test"].features)[:, 0].detach())


def test_cells_are_computed_once_and_change_with_their_experiments(tmp_path):
    axes = {"relatedness": [0.0], "n_scans": [40], "n_steps": [5]}
    cells = cells_of(axes, {})
    options = {"n_seeds": 2, "folder": tmp_path, "workers": 1}
    (first,) = run_map(cells, {"STL": STL}, **options)
    stamp = first.stat().st_mtime_ns
    (again,) = run_map(cells, {"STL": STL}, **options)
    (other,) = run_map(cells, {"STL": STL, "MTL": MTL}, **options)
    assert again == first
    assert first.stat().st_mtime_ns == stamp
    assert other != first


def test_side_arms_lie_at_one_number_of_scans_and_steps_for_every_relatedness():
    axes = {"relatedness": [0.0, 1.0], "n_scans": [160], "n_steps": [5]}
    side = [cell for cell in cells_of(axes, {"one_label": True}) if cell.arm]
    assert {(c.n_scans, c.n_steps, c.one_label) for c in side} == {(640, 2400, True)}
    assert [c.relatedness for c in side] == [0.0, 1.0]


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    cell = Cell(relatedness=0.5, n_scans=40, n_steps=5)
    return run_cell(cell, {"STL": STL, "MTL": MTL}, n_seeds=3)


def test_a_cell_has_a_row_per_experiment_and_seed_paired_by_world(results):
    assert list(results["experiment"]) == ["STL"] * 3 + ["MTL"] * 3
    wide = results.pivot_table(index="seed", columns="experiment", values="ceiling")
    assert (wide["STL"] == wide["MTL"]).all()


def made(**differences: list[float]) -> pd.DataFrame:
    """Results of one cell: a reference A of 0.7 and experiments that differ from it by these values, per seed."""
    given = {"A": [0.0] * 3} | differences
    rows = [(name, seed, value) for name, values in given.items() for seed, value in enumerate(values)]
    frame = pd.DataFrame(rows, columns=["experiment", "seed", "auc_test"])
    frame = frame.assign(auc_validation=frame["auc_test"] + 0.6, auc_test=frame["auc_test"] + 0.7)
    place = {"arm": "", "relatedness": 0.0, "n_scans": 160, "n_steps": 800}
    return frame.assign(**place, ceiling=0.9, auc_train=0.9, learnt=True)


def test_a_contrast_is_the_mean_paired_difference_with_its_t_interval():
    row = contrast_table(made(B=[0.01, 0.02, 0.03]), [("B", "A")]).iloc[0]
    half = 4.302653 * 0.01 / np.sqrt(3)  # t quantile of two degrees of freedom
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.02, 0.02 - half, 0.02 + half])
    assert (row["favours"], row["n_seeds"]) == (3, 3)


def test_the_tuned_experiment_is_chosen_per_seed_on_validation():
    results = made(B=[0.01, -0.02, 0.03], C=[0.0, 0.01, 0.05])
    tuned = with_tuned(results, ["B", "C"])
    chosen = tuned[tuned["experiment"] == "tuned static"].sort_values("seed")
    assert chosen["auc_test"].tolist() == pytest.approx([0.71, 0.71, 0.75])
    assert experiment_table(tuned).set_index("experiment").loc["tuned static", "n_seeds"] == 3


def test_a_map_that_is_the_same_in_both_halves_is_foretold():
    rng = np.random.default_rng(0)
    parts = []
    for relatedness in (0.0, 0.5, 1.0):
        for n_scans in (160, 640, 2560):
            for n_steps in (800, 2400, 7200):
                effect = 0.05 * (relatedness - 0.5) + 0.02 * np.log(n_steps / 2400)
                cell = made(B=list(effect + rng.normal(0, 0.002, 3)))
                parts.append(cell.assign(relatedness=relatedness, n_scans=n_scans, n_steps=n_steps))
    row = held_out(pd.concat(parts), [("B", "A")]).iloc[0]
    assert row["n_cells"] == 27
    assert row["correlation"] > 0.95


def test_watched_students_learn_the_same_and_a_task_that_is_the_central_one_over_again_agrees_with_it():
    scans, budget = draw_scans(WORLD, seed=0), Budget(n_steps=40)
    twins = {
        split: part._replace(target=part.target[:, :1].expand(-1, 5), known=part.known) for split, part in scans.items()
    }
    watch = Early(0.5, [twins])
    plain, watched = (train_students([[build(MTL)]], [twins], budget, seed=0, watch=w)["test"] for w in (None, watch))
    apart = Early(0.5, [scans])
    train_students([[build(MTL)]], [scans], budget, seed=0, watch=apart)

    assert torch.equal(plain, watched)
    assert len(watch.seen) == 2  # before steps 0 and 10 of 20
    assert set(watch.signs) == {"cosine", "affinity", "validation"}
    with pytest.raises(ValueError, match=r"above 0 and below 1\. Found 1"):
        Early(1, [scans])
    assert watch.signs["affinity"].item() > apart.signs["affinity"].item()


def test_cosine_and_affinity_are_those_of_the_gradients_that_torch_gives():
    generator = torch.Generator().manual_seed(0)
    weight, bias, head, offset = (
        torch.randn(1, 1, *shape, generator=generator) for shape in ((6, 4), (1, 4), (4, 2), (1, 2))
    )
    features, target = torch.randn(1, 8, 6, generator=generator), torch.randint(0, 2, (1, 8, 2), generator=generator)
    known, positive = torch.ones(1, 8, 2, dtype=torch.bool), torch.tensor([[2.0, 1.0]])
    found = look([weight, bias, head, offset], features, target.float(), known, positive)
    shared = [part[0, 0].double().requires_grad_() for part in (weight, bias)]

    def losses(down, side):
        logits = (features[0].double() @ down + side).relu() @ head[0, 0].double() + offset[0, 0].double()
        options = {"pos_weight": positive[0].double(), "reduction": "none"}
        return binary_cross_entropy_with_logits(logits, target[0].double(), **options).mean(dim=0)

    central, other = (torch.autograd.grad(losses(*shared)[task], shared) for task in (0, 1))
    flat = [torch.cat([part.flatten() for part in both]) for both in (central, other)]
    ahead = losses(*(part - 0.003 * slope for part, slope in zip(shared, other, strict=True)))[0]
    wanted = [torch.cosine_similarity(*flat, dim=0).item(), (1 - ahead / losses(*shared)[0]).item()]
    assert found.flatten().tolist() == pytest.approx(wanted, rel=1e-6)


def test_a_sign_that_orders_the_cells_correlates_and_one_that_is_turned_at_long_trainings_fails_there():
    rng, parts = np.random.default_rng(0), []
    for relatedness, n_scans, n_steps in itertools.product((0.0, 0.5, 1.0), (160, 640), (800, 7200)):
        effect = relatedness + n_scans / 1e4 + rng.normal(0, 0.01, 3)
        cell = made(B=list(0.01 * effect))
        signs = {"cosine": effect, "affinity": effect * (1 if n_steps == 800 else -1), "validation": rng.normal(size=3)}
        own = {f"early_{name}": np.where(cell["experiment"] == "B", np.resize(sign, len(cell)), 0.0)
               for name, sign in signs.items()}  # fmt: skip
        cell = cell.assign(relatedness=relatedness, n_scans=n_scans, n_steps=n_steps, **own)
        parts.append(cell.replace({"experiment": {"A": "STL"}}))
    table = predictor_table(pd.concat(parts)).set_index(["sign", "over", "n_steps"])

    assert table.loc[("cosine", "cells", 0), "n"] == 12
    assert table.loc[("cosine", "cells", 0), "correlation"] == pytest.approx(1.0)
    assert table.loc[("cosine", "worlds", 0), "correlation"] == pytest.approx(1.0)
    assert table.loc[("affinity", "cells", 800), "low"] > 0
    assert table.loc[("affinity", "cells", 7200), "high"] < 0
    assert table.loc[("affinity", "cells", 7200), "same_sign"] == 0
    noise = table.loc[("validation", "worlds", 0)]
    assert noise["low"] < noise["correlation"] < 0.5


def weighed_alone(policy, gramians: np.ndarray, known: np.ndarray) -> list[tuple[float, ...]]:
    at = {"n_steps": 24, "epoch": 0, "n_epochs": 1, "losses": [1.0] * 5}
    return [
        policy(Step(step, gramian=g, known=k, **at)).weights
        for step, (g, k) in enumerate(zip(gramians, known, strict=True))
    ]


@pytest.fixture(scope="module")
def hard() -> tuple[np.ndarray, np.ndarray]:
    """Gramians of nine steps of four seeds, (9, 4, 5, 5): unlike lengths, some opposed, some without a label."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(9, 4, 5, 8)) * rng.lognormal(size=(9, 4, 5, 1))
    gradients[3:6, :, 2] -= gradients[3:6, :, 0]
    known = np.ones((9, 4, 5), dtype=bool)
    known[6:, :, 1] = False
    known[8, 2] = [False, False, True, True, False]
    return gradients @ gradients.swapaxes(2, 3), known


@pytest.mark.parametrize("name", ["MGDA", "IMTLG", "PCD"])
def test_a_rule_for_all_seeds_at_once_weighs_as_its_policy_does(name, hard):
    pytest.importorskip("torchjd")
    one = Weighting(tasks=TASKS, weights=[1.0, 1.0, 2.0, 1.0, 0.5], policy=name)
    together = Together([build(one)] * 4)
    found = np.stack([together(*step) for step in zip(*hard, strict=True)])  # (9, 4, 5)
    for seed in range(4):
        wanted = weighed_alone(build(one), hard[0][:, seed], hard[1][:, seed])
        np.testing.assert_allclose(found[:, seed], wanted, rtol=1e-5, atol=1e-5)


def test_pcgrad_of_all_seeds_at_once_projects_as_its_policy_does_in_the_same_order(hard):
    pytest.importorskip("torchjd")
    policy = build(Weighting(tasks=TASKS, weights=[1.0] * 5, policy="PCGrad"))
    gramians = hard[0][:6].reshape(-1, 5, 5)
    wanted = weighed_alone(policy, gramians, np.ones((24, 5), dtype=bool))
    orders = []
    for step in range(24):
        torch.manual_seed(random.Random(f"{policy.seed}, step {step}").getrandbits(63))  # as the policy draws
        orders.append(torch.stack([torch.randperm(5) for _ in range(5)]).numpy())
    np.testing.assert_allclose(projected(gramians, np.stack(orders)).clip(min=0), wanted, rtol=1e-5, atol=1e-5)
    drawn = Together([policy] * 24)(gramians, np.ones((24, 5), dtype=bool))
    assert (drawn >= 0).all()
    assert np.abs(drawn - wanted).max() > 0.01  # the order matters


def test_each_student_asks_its_own_policy_with_what_its_own_batch_shows():
    seen = []

    class Seen(type(build(MTL))):
        def __call__(self, step):
            seen.append(step)
            return dataclasses.replace(super().__call__(step), restart=len(seen) == 2)

    losses, gramians = torch.rand(3, 5), torch.rand(3, 5, 5)
    known = torch.rand(3, 5) < 0.5
    at = {"step": 0, "n_steps": 4, "epoch": 0, "n_epochs": 1}
    policies = [Seen(TASKS, [weight, 1.0, 1.0, 1.0, 1.0]) for weight in (1.0, 2.0, 3.0)]
    weights, restarts = Each(policies).answers(at, losses, known, gramians)

    for s, step in enumerate(seen):
        assert all(torch.equal(*both) for both in ((step.losses, losses[s]), (step.gramian, gramians[s])))
        assert list(step.known) == known[s].tolist()
    assert weights[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert restarts.tolist() == [False, True, False]
    assert Each(policies[:1] * 3).answers(at, losses, known, None)[0].shape == (3, 5)
    assert len(seen) == 4  # one policy for all is asked once


def test_gramians_of_the_stack_are_those_of_the_shared_layer():
    """What rules see equals the products of the gradients that torch gives at the shared layer of each student."""
    scans, seen = draw_scans(WORLD, seed=0), []

    class Watching(type(build(dataclasses.replace(MTL, policy="GCS")))):
        def __call__(self, step):
            seen.append(step.gramian)
            return super().__call__(step)

    train_students([[Watching(TASKS, [1.0] * 5)]], [scans], Budget(n_steps=1), seed=0)
    generator = torch.Generator().manual_seed(0)
    weight, bias, head, offset = (
        (2 * torch.rand(*shape, generator=generator) - 1) * n_in**-0.5
        for shape, n_in in (((64, 32), 64), ((1, 32), 64), ((32, 5), 32), ((1, 5), 32))
    )
    rows = torch.randperm(64, generator=generator)[:8]
    target = scans["train"].target
    volume = scans["train"].features[rows] + 0.3 * torch.randn(8, 64, generator=generator)
    hidden = (volume @ weight + bias).relu().requires_grad_()
    positive = (1 - target).sum(dim=0) / target.sum(dim=0)
    options = {"pos_weight": positive, "reduction": "none"}
    losses = binary_cross_entropy_with_logits(hidden @ head + offset, target[rows], **options).mean(dim=0)
    torch.testing.assert_close(seen[0].double(), gramian(losses, [hidden]), rtol=1e-4, atol=1e-8)


def test_the_cells_that_were_watched_are_those_of_the_map():
    tables = [ROOT / "results" / study / "tables" / "experiments.csv" for study in ("when-early", "when")]
    watched, of_map = (set(path.read_text(encoding="utf-8").splitlines()) for path in tables)
    same = {row for row in watched if ",STL," in row or ",MTL," in row}
    assert len(same) == 72
    assert same <= of_map
