"""Samplers: batches by label, the same number of them, restorable bit for bit."""

import copy
import itertools

import pytest
import torch
from torch.utils.data import DataLoader

from lungmtl.network.sampling import SAMPLER_CLASSES, Natural, sampler
from lungmtl.network.settings import SAMPLERS
from lungmtl.policies.schedules import BW, PFLP

TASKS = ("a", "b", "c")
PERIOD = 2
FOCUS = PFLP(BW(TASKS, [1.0, 1.0, 1.0]), period=PERIOD)
BATCH = 4


class Scans(torch.utils.data.Dataset):
    """Scans by number; with `apart` each is labelled for one task: half for the first, a quarter for each other."""

    def __init__(self, n=41, *, apart=True):
        place = torch.tensor([0, 1, 0, 2]).repeat(n)[:n]
        self.known = torch.nn.functional.one_hot(place, 3).bool() | (not apart)

    def __len__(self):
        return len(self.known)

    def __getitem__(self, index):
        return index


def batches_of(name, scans=None, *, seed=0, batch_size=BATCH):
    return sampler(name, FOCUS)(scans or Scans(), batch_size, torch.Generator().manual_seed(seed))


def epochs(batches, n=2):
    return [[list(batch) for batch in batches] for _ in range(n)]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def test_natural_batches_and_all_later_draws_are_those_of_torch():
    found, draws = [], []
    for is_ours in (True, False):
        generator = torch.Generator().manual_seed(3)
        ours = {"batch_sampler": Natural(Scans(), BATCH, generator)}
        theirs = {"batch_size": BATCH, "shuffle": True, "drop_last": True}
        loader = DataLoader(Scans(), **(ours if is_ours else theirs), generator=generator)
        drawn = [(batch.tolist(), torch.rand(2, generator=generator).tolist()) for _ in range(3) for batch in loader]
        found.append(drawn)
        draws.append(torch.rand(5, generator=generator).tolist())
    assert found[0] == found[1]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_gives_as_many_full_batches_of_different_scans(name):
    batches = batches_of(name)
    for epoch in epochs(batches):
        assert len(epoch) == len(batches) == 41 // BATCH
        assert all(len(set(batch)) == BATCH for batch in epoch)
    assert set(SAMPLER_CLASSES) == set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_follows_its_seed_alone(name):
    assert epochs(batches_of(name)) == epochs(batches_of(name))
    assert epochs(batches_of(name)) != epochs(batches_of(name, seed=1))
    first, second = epochs(batches_of(name))
    assert first != second


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("stop", [0, 3, 10, 14, 20])
def test_stop_and_go_equals_straight_through_with_a_generator_that_others_draw_from(name, stop):
    def batches_and_draws(batches, generator, n):
        found, loader = [], DataLoader(batches.scans, batch_sampler=batches, generator=generator)
        while len(found) < n:
            for batch in loader:
                found.append((batch.tolist(), torch.rand(1, generator=generator).item()))
                if len(found) == n:
                    break
        return found

    def start():
        generator, scans = torch.Generator().manual_seed(5), Scans()
        batches = sampler(name, FOCUS)(scans, BATCH, generator)
        batches.scans = scans
        return batches, generator

    straight = batches_and_draws(*start(), 25)
    batches, generator = start()
    before = batches_and_draws(batches, generator, stop) if stop else []
    state = copy.deepcopy(batches.state_dict())
    resumed, generator = start()
    torch.rand(9, generator=generator)  # whatever it did before does not count
    resumed.load_state_dict(state)

    assert before + batches_and_draws(resumed, generator, 25 - stop) == straight


def test_each_batch_holds_a_labelled_scan_of_each_task():
    known = Scans().known
    for batch in flat(epochs(batches_of("each"))):
        assert known[batch].any(dim=0).all()


def test_tasks_take_turns_in_proportion_to_their_labels():
    known = Scans(80).known
    (epoch,) = epochs(batches_of("turns", Scans(80)), 1)
    tasks = [known[batch].float().mean(dim=0) for batch in epoch]
    assert all(share.max() == 1 for share in tasks)  # every scan of a batch has the label
    turns = [int(share.argmax()) for share in tasks]
    assert [turns.count(task) for task in range(3)] == [10, 5, 5]
    assert all(turns[at : at + 4].count(0) == 2 for at in range(0, 20, 4))  # in turn, not one after another


def test_batches_follow_the_task_in_focus_over_the_ends_of_epochs():
    known = Scans().known
    batches = flat(epochs(batches_of("focus")))
    assert len(batches) == 20  # an epoch of 10 does not hold whole cycles of 6
    for step, batch in enumerate(batches):
        assert known[batch, step // PERIOD % 3].all()


def test_a_turn_of_nobody_draws_from_all_scans():
    nobody = PFLP(BW(TASKS, [1.0] * 3), period=1, order=["a", ""])
    known = Scans().known
    batches = list(sampler("focus", nobody)(Scans(), BATCH, torch.Generator().manual_seed(0)))
    assert all(known[batch, 0].all() for batch in batches[::2])
    assert not all(known[batch, 0].all() for batch in batches[1::2])


def test_scans_of_a_task_all_come_before_one_comes_again():
    scans = Scans(80)
    batches = [batch for batch in batches_of("turns", scans) if scans.known[batch, 1].all()]
    assert sorted(flat(batches)) == scans.known[:, 1].nonzero()[:, 0].tolist()


def test_a_batch_holds_a_scan_twice_only_where_a_task_has_too_few():
    scans = Scans(12)
    batches = [batch for batch in batches_of("turns", scans, batch_size=4) if scans.known[batch, 1].all()]
    assert batches
    assert all(set(batch) == {1, 5, 9} for batch in batches)


def test_where_every_scan_has_all_labels_none_comes_twice():
    order = flat(epochs(batches_of("each", Scans(apart=False)), 1)[0])
    assert len(set(order)) == len(order) == 40


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("turns", {"scans": Scans(3)}, r"labelled scans of every task\. Found \[2, 1, 0\]"),
        ("each", {"batch_size": 2}, r"a scan of each of 3 tasks\. Found 2 scans"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused(name, change, message):
    with pytest.raises(ValueError, match=message):
        batches_of(name, **change)
