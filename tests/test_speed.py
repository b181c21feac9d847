"""What makes training fast changes nothing else: scans held in either way, few channels in lanes, drawn noise."""

import pytest
import torch
from test_train import TASKS, run, scans

from lungmtl.network import augmentation, device, held
from lungmtl.network.augmentation import Augmentation, columns
from lungmtl.network.model import MultiTaskNet
from lungmtl.network.norm import Norm


@pytest.mark.parametrize("augment", [True, False])
def test_scans_read_ahead_train_to_the_same_bits_as_scans_held(monkeypatch, augment):
    whole = run(augment=augment)
    monkeypatch.setitem(held.MEMORY_SHARE, "cpu", 0.0)
    read = run(augment=augment)
    assert read.steps.equals(whole.steps)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, read.model.state_dict()[name]), name


def test_batches_are_the_scans_asked_for_whatever_was_read_ahead(monkeypatch):
    train_set = scans(12)
    for share in (0.125, 0.0):
        monkeypatch.setitem(held.MEMORY_SHARE, "cpu", share)
        batches = held.Held(train_set, torch.device("cpu"), dtype=None)
        assert batches.fits == (share > 0)
        for index, ahead in (([3, 1], [7, 2]), ([7, 2], [0, 5]), ([4, 6], [])):  # the third is not the one announced
            volumes, place, target, known = batches.batch(index, ahead)
            for found, part in ((volumes[place], 0), (target, 1), (known, 2)):
                assert torch.equal(found, torch.stack([train_set[k][part] for k in index]))
        assert torch.equal(torch.cat([volume for volume, _, _ in batches.in_order(5)]), train_set.datasets[0])


@pytest.mark.parametrize("training", [True, False])
def test_few_channels_in_lanes_are_normalised_as_torch_does(training):
    generator = torch.Generator().manual_seed(0)
    features, slope = (torch.randn(2, 8, 4, 6, 8, generator=generator) + 0.5 for _ in range(2))
    ours, theirs = Norm(8), torch.nn.BatchNorm3d(8).double()
    with torch.no_grad():
        for module in (ours, theirs):
            module.weight.copy_(torch.linspace(0.5, 2, 8))
            module.bias.copy_(torch.linspace(-1, 1, 8))
            module.train(training)
    results = []
    for module, dtype in ((ours, torch.float32), (theirs, torch.float64)):
        source = features.to(dtype, memory_format=torch.channels_last_3d).requires_grad_()
        result = module(source)
        result.backward(slope.to(dtype))
        parts = (result, source.grad, module.weight.grad, module.bias.grad, module.running_mean, module.running_var)
        results.append([part.detach().double() for part in parts])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)  # float32 sums of 384 values
    assert ours.num_batches_tracked == theirs.num_batches_tracked
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_joined_heads_are_those_of_each_task():
    network = MultiTaskNet(TASKS, width=4)
    features = torch.randn(2, 32, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    logits, attention = network.read(features)
    for place, task in enumerate(TASKS):
        expected = network.attention[task](features).flatten(1).softmax(dim=1)
        torch.testing.assert_close(attention[:, place].flatten(1), expected)
        pooled = (features.flatten(2) * expected[:, None]).sum(dim=2)
        torch.testing.assert_close(logits[:, place], network.subnetwork[task](pooled)[:, 0])


def noise_of(monkeypatch, volume, *, seed=0):
    for name in ("MAX_SHIFT_FRACTION", "MAX_ROTATION_DEG", "MAX_SCALE"):
        monkeypatch.setattr(augmentation, name, 0.0)
    monkeypatch.setattr(torch, "where", lambda condition, yes, no: torch.full(condition.shape, no))  # no flip
    generator = torch.Generator().manual_seed(seed)
    augmented = Augmentation(volume.shape[2:], generator, seed=0, dtype=volume.dtype)
    moved = augmented(torch.stack([columns(scan) for scan in volume]), torch.arange(len(volume)))
    return (moved - volume).flatten(1)


def test_noise_is_white_and_knows_neither_the_volume_nor_other_scans(monkeypatch):
    volume = 0.2 + 0.6 * torch.rand(16, 1, 24, 24, 24, generator=torch.Generator().manual_seed(1))
    noise = noise_of(monkeypatch, volume)
    deviations = noise.std(dim=1)
    assert deviations.max() <= augmentation.MAX_NOISE * 1.02  # a deviation of 13,824 values is known to 0.6 %
    assert deviations.max() > 2 * deviations.min()  # the scans' noise differs
    unit = noise / deviations[:, None]
    limit = 5 / noise.shape[1] ** 0.5  # five deviations of a mean or correlation of so many values
    assert unit.mean(dim=1).abs().max() < limit
    assert (unit * (volume.flatten(1) - 0.5) / 0.173).mean(dim=1).abs().max() < limit
    others = unit @ unit.T / noise.shape[1] - torch.eye(16)
    assert others.abs().max() < limit
    assert (unit[:, 1:] * unit[:, :-1]).mean(dim=1).abs().max() < limit  # neighbours
    assert unit.pow(4).mean().item() == pytest.approx(3, abs=0.1)  # a normal distribution's


def test_there_is_no_noise_outside_the_lungs(monkeypatch):
    volume = torch.zeros(4, 1, 8, 8, 8)
    volume[:, :, 2:5] = 0.5
    noise = noise_of(monkeypatch, volume).view(volume.shape)
    assert (noise[volume == 0] == 0).all()
    assert (noise[volume > 0] != 0).any()


def test_bf16_convolutions_agree_with_fp32_and_disagreement_is_found(monkeypatch, caplog):
    assert 0 < device.bf16_error(torch.device("cpu")) < device.MAX_BF16_ERROR
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for error, expected in ((0.004, "bf16"), (0.3, "fp32")):
        monkeypatch.setattr(device, "bf16_error", lambda where, error=error: error)
        assert device.resolve_precision("auto", shape=(64, 64, 64)) == expected
    assert [record.message for record in caplog.records] == [
        "bf16 convolutions must agree with fp32 to 0.02. Found a difference of 0.3 on this GPU: fp32 is used."
    ]
    with pytest.raises(
        ValueError, match=r"agree with fp32 to 0\.02\. Found a difference of 0\.3 on this GPU: use fp32"
    ):
        device.resolve_precision("bf16", shape=(64, 64, 64))
    assert device.resolve_precision("fp32", shape=(64, 64, 64)) == "fp32"
