"""The training loop: reproducible, selecting, augmenting, learning."""

import dataclasses

import pandas as pd
import pytest
import torch

from lungmtl.network import augmentation
from lungmtl.network.augmentation import Augmentation, columns
from lungmtl.network.device import MIN_BF16_VOXELS, forward, resolve_precision, seed_everything
from lungmtl.network.losses import task_losses
from lungmtl.network.model import MultiTaskNet
from lungmtl.network.settings import Training
from lungmtl.network.training import _epoch_head, _epoch_line, fit, predict
from lungmtl.policies.contract import Decision, Policy
from lungmtl.policies.schedules import BW, ITW, PFLP

TASKS = ("lung_cancer", "emphysema")
SETTINGS = {
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.003,
    "weight_decay": 0.01,
    "warmup": 0.1,
    "augment": True,
    "selection": "best_auc",
}
OTHERS = {"positive_weight": None, "precision": "fp32", "seed": 0}


def scans(n, *, seed=0, known=True):
    """Volumes with a bright corner where the first label is 1, denser where the second is."""
    generator = torch.Generator().manual_seed(seed)
    target = (torch.arange(n)[:, None] // torch.tensor([1, 2]) % 2).float()
    volume = 0.2 * torch.rand(n, 1, 16, 16, 16, generator=generator) + 0.2 * target[:, 1].view(-1, 1, 1, 1, 1)
    volume[:, :, 4:10, 4:10, 4:10] += 0.5 * target[:, 0].view(-1, 1, 1, 1, 1)
    return torch.utils.data.StackDataset(volume, target, torch.full((n, 2), known))


def run(train_set=None, **changes):
    seed_everything(changes.get("seed", 0))
    policy = changes.pop("policy", PFLP(BW(TASKS, [3.0, 1.0]), period=2))
    others = {name: changes.pop(name, value) for name, value in (OTHERS | {"checkpoints": None}).items()}
    network = MultiTaskNet(TASKS, width=4)
    training = Training(**SETTINGS | changes)
    return fit(network, train_set or scans(16), scans(8, seed=1), policy=policy, training=training, **others)


def test_the_same_seed_twice_gives_the_same_bits():
    first, second = run(), run()
    pd.testing.assert_frame_equal(first.steps, second.steps, check_exact=True)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_another_seed_gives_another_run():
    assert not run().steps["loss"].equals(run(seed=1).steps["loss"])


def test_steps_say_what_the_policy_did():
    steps = run(policy=ITW(PFLP(BW(TASKS, [3.0, 1.0]), period=2), start=0.5)).steps
    assert steps["step"].tolist() == list(range(8))
    assert steps["phase"].tolist() == ["focus"] * 4 + ["transfer"] * 4
    assert steps["weight_lung_cancer"].tolist() == pytest.approx([3, 3, 0.3, 0.3, 3, 3, 3, 3])
    total = (steps["weight_lung_cancer"] * steps["loss_lung_cancer"]) + (
        steps["weight_emphysema"] * steps["loss_emphysema"]
    )
    assert steps["loss"].to_numpy() == pytest.approx(total.to_numpy(), rel=1e-5)  # float32


def steps_of(*, restart: bool, start: float = 0.5):
    policy = ITW(BW(TASKS, [3.0, 1.0]), start=start, restart=restart)
    return run(policy=policy, epochs=3, warmup=0.5).steps["loss"].to_numpy()


def test_a_restart_changes_the_steps_after_the_switch_only():
    plain, restarted = steps_of(restart=False), steps_of(restart=True)
    # the switch is step 6 of 12; that step's loss comes before its update
    assert (plain[:7] == restarted[:7]).all()
    assert (plain[7:] != restarted[7:]).all()


def test_a_restart_at_the_first_step_changes_nothing():
    assert (steps_of(restart=True, start=0) == steps_of(restart=False, start=0)).all()


def test_the_kept_epoch_has_the_best_validation_auc():
    fitted = run(epochs=4)
    validation = fitted.history.query("split == 'validation' and task == 'lung_cancer'")
    assert fitted.best_epoch == validation["auc"].to_numpy().argmax()


def test_the_last_epoch_is_kept_on_request():
    assert run(selection="last", epochs=3).best_epoch == 2


def test_an_easy_signal_is_learnt_and_predicted_in_order():
    fitted = run(epochs=12, policy=BW(TASKS, [1.0, 1.0]))
    test = scans(16, seed=2)
    probability = predict(fitted.model, test, batch_size=4, precision="fp32")
    target = torch.stack([test[k][1] for k in range(16)])[:, 0].bool().numpy()
    assert probability.shape == (16, 2)
    assert probability[target, 0].min() > probability[~target, 0].max()


def test_prediction_does_not_depend_on_the_batch():
    fitted = run()
    few = predict(fitted.model, scans(8), batch_size=2, precision="fp32")
    many = predict(fitted.model, scans(8), batch_size=8, precision="fp32")
    assert few == pytest.approx(many, abs=1e-5)  # float32 sums in another order


def test_a_task_unknown_in_every_batch_is_blank_in_the_steps():
    fitted = run(scans(8, known=False), policy=BW(TASKS, [1, 1]))
    assert fitted.steps["loss_lung_cancer"].isna().all()
    assert (fitted.steps["loss"] == 0).all()


def augmented(volume, generator):
    held = torch.stack([columns(scan) for scan in volume])
    return Augmentation(volume.shape[2:], generator, seed=0, dtype=volume.dtype)(held, torch.arange(len(volume)))


@pytest.mark.parametrize("limit", ["MAX_SHIFT_FRACTION", "MAX_ROTATION_DEG", "MAX_SCALE", "MAX_NOISE"])
def test_augmentation_without_limits_only_mirrors(monkeypatch, limit):
    for name in ("MAX_SHIFT_FRACTION", "MAX_ROTATION_DEG", "MAX_SCALE", "MAX_NOISE"):
        monkeypatch.setattr(augmentation, name, 0.0)
    volume = torch.rand(8, 1, 6, 10, 14, generator=torch.Generator().manual_seed(0))
    moved = augmented(volume, torch.Generator().manual_seed(3))
    mirrored = [not torch.allclose(a, b, atol=1e-5) for a, b in zip(moved, volume, strict=True)]
    assert 0 < sum(mirrored) < 8
    expected = torch.stack([v.flip(-1) if m else v for v, m in zip(volume, mirrored, strict=True)])
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)  # interpolation at voxel centres
    monkeypatch.setattr(augmentation, limit, 0.2 if limit != "MAX_ROTATION_DEG" else 20.0)
    assert not torch.allclose(augmented(volume, torch.Generator().manual_seed(3)), moved, atol=1e-3)


def test_rotation_keeps_shapes_in_a_grid_that_is_not_square(monkeypatch):
    for name in ("MAX_SHIFT_FRACTION", "MAX_SCALE", "MAX_NOISE"):
        monkeypatch.setattr(augmentation, name, 0.0)
    monkeypatch.setattr("lungmtl.network.augmentation.MAX_ROTATION_DEG", 40.0)
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(48) - 23.5, indexing="ij")
    disc = ((y**2 + x**2) < 64).float().expand(4, 1, 3, 24, 48)
    moved = augmented(disc, torch.Generator().manual_seed(0))
    assert ((moved - disc).abs() > 0.75).sum() == 0  # a disc looks the same from every side


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": BW(("a", "b"), [1, 1])}, "same tasks"),
        ({"batch_size": 17}, "fill one batch of 17. Found 16 scans"),
        ({"selection": "luck"}, "best_auc or last"),
        ({"learning_rate": 1e30, "epochs": 3}, "stay finite"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        run(**change)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"auto, bf16 or fp32\. Found .fp16."):
        resolve_precision("fp16", shape=(64, 64, 64))


def test_auto_precision_takes_fp32_where_bf16_would_be_wrong(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert resolve_precision("auto", shape=(17, 17, 17)) == "bf16"
    assert resolve_precision("auto", shape=(64, 16, 64)) == "fp32"


def test_bf16_on_a_cpu_is_refused_for_two_slices_of_features():
    volume = torch.zeros(4, 1, 16, 24, 24)
    with pytest.raises(ValueError, match=r"at least 17 voxels along every axis\. Found \(16, 24, 24\): use fp32"):
        forward(MultiTaskNet(TASKS, width=4), volume, "bf16")


def test_bf16_weight_gradients_are_right_on_the_smallest_grid_allowed():
    torch.manual_seed(0)
    network = MultiTaskNet(TASKS, width=4)
    convolutions = [layer for layer in network.encoder.modules() if isinstance(layer, torch.nn.Conv3d)]
    seen = {}
    for layer in convolutions:
        layer.register_forward_hook(lambda layer, inputs, output: _keep(seen, layer, inputs[0], output))
    forward(network, torch.rand(4, 1, *3 * [MIN_BF16_VOXELS]), "bf16")[0].sum().backward()
    for layer in convolutions:
        source, slope = (part.bfloat16().double() for part in seen[layer])
        expected = torch.nn.grad.conv3d_weight(source, layer.weight.shape, slope, layer.stride, layer.padding)
        tolerance = 0.02 * expected.abs().max().item()  # bf16 keeps 8 bits; with two slices the error is the maximum
        torch.testing.assert_close(layer.weight.grad.double(), expected, atol=tolerance, rtol=0)


def _keep(seen, layer, source, output):
    output.register_hook(lambda slope: seen.update({layer: (source.detach(), slope)}))


@dataclasses.dataclass(frozen=True)
class Watching(Policy):
    """A policy with constant weights that keeps the steps it was asked with."""

    needs_gradients: str = ""
    tasks: tuple[str, ...] = TASKS
    base: tuple[float, ...] = (1.0, 0.5)
    steps: list = dataclasses.field(default_factory=list)

    def __call__(self, step):
        self.steps.append(step)
        return Decision(self.base, "watching")


def test_a_policy_sees_losses_and_known_labels_and_no_gradients_unless_it_asks():
    policy = Watching()
    fitted = run(policy=policy, epochs=1)
    assert [step.step for step in policy.steps] == [0, 1, 2, 3]
    assert all(step.gramian is None for step in policy.steps)
    losses = torch.stack([step.losses for step in policy.steps])  # (steps, T)
    assert not losses.requires_grad
    assert losses[:, 1].tolist() == pytest.approx(fitted.steps["loss_emphysema"].tolist())
    assert fitted.steps["phase"].unique().tolist() == ["watching"]


@pytest.mark.parametrize("place", ["features", "parameters"])
def test_asking_for_gradients_changes_no_bit_of_the_training(place):
    plain, asked = run(policy=Watching()), run(policy=Watching(needs_gradients=place))
    pd.testing.assert_frame_equal(plain.steps, asked.steps, check_exact=True)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, asked.model.state_dict()[name]), name


@pytest.mark.parametrize("place", ["features", "parameters"])
def test_the_gramian_is_that_of_every_tasks_loss_and_zero_without_labels(place):
    policy = Watching(needs_gradients=place)
    train_set = scans(4)
    train_set.datasets[2][:, 0] = False  # nobody knows the first task
    run(train_set, policy=policy, epochs=1, augment=False)
    seed_everything(0)
    network = MultiTaskNet(TASKS, width=4).train()
    volume, target = train_set.datasets[0], train_set.datasets[1]
    features = network.encode(volume)
    losses = task_losses(network.read(features)[0], target, train_set.datasets[2])
    at = [features] if place == "features" else list(network.shared_parameters())
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(losses[1], at)])
    (found,) = [step.gramian for step in policy.steps]
    assert policy.steps[0].known.tolist() == [False, True]
    assert (found[0] == 0).all()
    assert (found[:, 0] == 0).all()
    # scans of a batch come in another order, which permutes features and leaves parameters and norms as they are
    assert found[1, 1].item() == pytest.approx(expected.norm().item() ** 2, rel=2e-3)


def test_an_unknown_place_of_gradients_is_refused():
    with pytest.raises(ValueError, match=r"features, parameters or blank\. Found 'heads'"):
        run(policy=Watching(needs_gradients="heads"))


@pytest.mark.parametrize("loss", [0.4126, 12.3, 99.99996, 123456.7, float("nan")])
def test_every_auc_ends_where_its_task_does_whatever_the_loss(loss):
    rows = [{"loss": loss, "auc": 0.5, "task": task, "seconds": 1.0} for task in TASKS]
    head, line = _epoch_head(50, TASKS), _epoch_line(3, 50, rows, rows)

    for task in TASKS:
        end = head.index(task) + len(task)
        assert line[end - 4 : end] == "0.50"
