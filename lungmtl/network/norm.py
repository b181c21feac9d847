"""Batch norm that is fast on few channels of a CPU.

A channels-last tensor of 8 channels leaves most of a vector register empty in torch's kernels. Neighbouring voxels are
therefore taken for channels, and their moments joined: the same function, to rounding, in half of the time.
"""

import torch
from torch import Tensor, nn

LANES = 64  # values side by side
FEW = 16  # channels from which torch's own kernel is as fast


class Norm(nn.BatchNorm3d):
    """`nn.BatchNorm3d` of features (B, C, Z, Y, X)."""

    def forward(self, features: Tensor) -> Tensor:
        """Features normalised: by their own moments in training, which the running ones follow, else by those."""
        n_channels = features.shape[1]
        last = features.permute(0, 2, 3, 4, 1)
        n_voxels = LANES // n_channels
        is_wide = n_channels >= FEW or last.numel() % (n_voxels * n_channels) or not last.is_contiguous()
        if features.device.type != "cpu" or is_wide:
            return super().forward(features)
        rows = last.reshape(-1, n_voxels * n_channels)
        if self.training:
            rows, mean, variance = _Lanes.apply(rows, self.weight, self.bias, self.eps)
            self._follow(mean, variance, last.numel() // n_channels)
        else:
            rows = _scaled(rows, self.weight, self.bias, self.running_mean, self.running_var, self.eps)
        return rows.view(last.shape).permute(0, 4, 1, 2, 3)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, n: int) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)


def _scaled(rows: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Rows (N, K*C), less mean, over deviation, times weight, plus bias (C,) of their channels."""
    wide = (part.repeat(rows.shape[1] // len(part)) for part in (weight, bias, mean, variance))
    return torch.batch_norm(rows, *wide, False, 0.0, eps, False)


class _Lanes(torch.autograd.Function):
    """Rows (N, K*C) to those normalised, and mean and variance (C,) of each channel."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise with the moments of all N*K values of a channel, variance by N*K."""
        mean, variance = torch.zeros(2, rows.shape[1])
        torch.batch_norm_update_stats(rows, mean, variance, 1.0)  # in place; the variance with N - 1
        means, variances = mean.view(-1, len(weight)), variance.view(-1, len(weight)) * (1 - 1 / len(rows))
        mean = means.mean(dim=0)
        variance = (variances + (means - mean) ** 2).mean(dim=0)
        ctx.save_for_backward(rows, weight, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        ctx.eps = eps
        return _scaled(rows, weight, bias, mean, variance, eps), mean, variance

    @staticmethod
    def backward(ctx, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Slopes of rows, weight and bias: those with moments held fixed, less what the moments take up."""
        rows, weight, mean, variance = ctx.saved_tensors
        wide = (part.repeat(rows.shape[1] // len(part)) for part in (weight, mean, variance))
        to_rows, *sums = torch.ops.aten.native_batch_norm_backward(
            slope.contiguous(), rows, *wide, None, None, False, ctx.eps, [True] * 3
        )
        to_weight, to_bias = (part.view(-1, len(weight)).sum(dim=0) for part in sums)
        share = -weight * (variance + ctx.eps).rsqrt() * (len(weight) / rows.numel())
        to_rows += _scaled(rows, share * to_weight, share * to_bias, mean, variance, ctx.eps)
        return to_rows, to_weight, to_bias, None
