"""Students: small networks with one shared layer and a head per task, trained at the same time under many policies.

All students of a cell are one stack of tensors: K policies times S seeds. The students of a seed share scans, start and
batches, so that policies differ in their weights alone. Nothing couples two students: the loss is a sum over the
stack, and the optimiser works element by element.

Sources: AdamW after Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from lungmtl.network import learning_rate_share
from lungmtl.policies import Policy
from lungmtl.when.together import Each, Together, asked
from lungmtl.when.world import Scans

HIDDEN = 32  # values of the shared layer
JITTER = 0.3  # chosen by us: deviation of the noise that augments the features of every batch
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how students learn; the same for every policy.

    Attributes:
        n_steps: Optimiser steps, with the study's schedule: rise over a tenth, plateau, fall over the last quarter.
        optimiser: adamw or sgd (with momentum 0.9).
    """

    n_steps: int
    batch_size: int = 8
    learning_rate: float = 0.0003  # chosen on the single task alone; of sgd ten times as much
    weight_decay: float = 0.01
    warmup: float = 0.1
    optimiser: str = "adamw"


def train_students(
    policies: Sequence[Sequence[Policy]],
    scans: Sequence[dict[str, Scans]],
    budget: Budget,
    *,
    seed: int,
    watch: Callable[..., None] | None = None,
) -> dict[str, Tensor]:
    """Train K x S students and score their central task.

    Args:
        policies: K lists of one policy per seed, each with the tasks of the scans.
        scans: Of every seed, as `draw_scans` gives them.
        budget: The same for all.
        seed: Seeds start and batches, together with the place of the student's own seed.
        watch: Called before every step with all students, the number of the step and its batch (`Early`).
    Returns:
        Split -> AUC of the central task, (K, S), at the last step.
    """
    stack = _Stack(len(policies), scans, budget, seed)
    askable = [asked(of_seeds) for of_seeds in policies]
    train = [_stacked(scans, "train", part) for part in ("features", "target", "known")]
    positive = _positive_weight(*train[1:])  # (S, T)
    n_batches = len(scans[0]["train"].features) // budget.batch_size
    for step in range(budget.n_steps):
        epoch, batch = divmod(step, n_batches)
        if batch == 0:
            orders = stack.orders(train[0].shape[1])  # (S, N)
        rows = orders[:, batch * budget.batch_size : (batch + 1) * budget.batch_size, None]
        drawn = [part.gather(1, rows.expand(-1, -1, part.shape[2])) for part in train]
        drawn[0] = drawn[0] + JITTER * stack.noise(drawn[0].shape[1:])
        at = {"step": step, "n_steps": budget.n_steps, "epoch": epoch, "n_epochs": -(-budget.n_steps // n_batches)}
        if watch:
            watch(stack, step, *drawn, positive)
        stack.learn(askable, at, *drawn, positive)
    return {split: stack.aucs(scans, split) for split in ("train", "validation", "test")}


class _Stack:
    """Parameters and moments of all students, first axes (K, S)."""

    def __init__(self, n_policies: int, scans: Sequence[dict[str, Scans]], budget: Budget, seed: int) -> None:
        self.budget = budget
        n_features, n_tasks = (getattr(scans[0]["train"], part).shape[1] for part in ("features", "target"))
        self.generators = [torch.Generator().manual_seed(seed * 100_003 + place) for place in range(len(scans))]
        sizes = ((n_features, HIDDEN), (1, HIDDEN), (HIDDEN, n_tasks), (1, n_tasks))
        inputs = (n_features, n_features, HIDDEN, HIDDEN)
        starts = [[_start(size, n_in, generator) for size, n_in in zip(sizes, inputs, strict=True)]
                  for generator in self.generators]  # fmt: skip
        stacks = [torch.stack(parts).expand(n_policies, -1, -1, -1) for parts in zip(*starts, strict=True)]
        self.parameters = [stack.clone().requires_grad_() for stack in stacks]
        self.moments = [[torch.zeros_like(p) for p in self.parameters] for _ in BETAS]
        self.begun = torch.zeros(n_policies, len(scans), dtype=torch.long)  # first step of the present optimiser

    def orders(self, n: int) -> Tensor:
        """A new order of the training scans for every seed, (S, N)."""
        return torch.stack([torch.randperm(n, generator=generator) for generator in self.generators])

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Standard normal draws for every seed, (S, ...)."""
        return torch.stack([torch.randn(*shape, generator=generator) for generator in self.generators])

    def learn(
        self,
        policies: Sequence[Each | Together],
        at: dict[str, int],
        features: Tensor,
        target: Tensor,
        known: Tensor,
        positive: Tensor,
    ) -> None:
        """One optimiser step of every student on its seed's batch, (S, B, D), (S, B, T), (S, B, T)."""
        logits = read(self.parameters, features)
        losses = losses_of(logits, target, known, positive)  # (K, S, T)
        weights = torch.zeros(losses.shape)
        asking = [k for k, one in enumerate(policies) if one.needs_gradients]
        products = dict(zip(asking, self._gramians(logits, losses, asking), strict=True)) if asking else {}
        for k, one in enumerate(policies):
            weights[k], restarts = one.answers(at, losses[k].detach(), known.any(dim=1), products.get(k))
            self.begun[k, restarts] = at["step"]
        self._update(torch.autograd.grad((weights * losses).sum(), self.parameters), at["step"])

    def _gramians(self, logits: Tensor, losses: Tensor, asking: Sequence[int]) -> Tensor:
        """Products of the tasks' gradients at the shared layer, of the students of these policies, (A, S, T, T).

        The gradient of task t is its slope at the logits (B) times its head (H), so products are products of both.
        """
        slopes = torch.autograd.grad(losses[asking].sum(), logits, retain_graph=True)[0][asking]  # (A, S, B, T)
        head = self.parameters[2].detach()[asking]  # (A, S, H, T)
        return (slopes.mT @ slopes) * (head.mT @ head)

    @torch.no_grad()
    def _update(self, gradients: Sequence[Tensor], step: int) -> None:
        budget = self.budget
        age = (step - self.begun)[:, :, None, None]  # steps of the present optimiser
        left = (budget.n_steps - self.begun)[:, :, None, None]
        share = learning_rate_share(age.numpy(), n_steps=left.numpy(), warmup=budget.warmup)
        rate = torch.from_numpy(share).float() * budget.learning_rate
        root = (1 - BETAS[1] ** (age + 1)).sqrt()
        size, kept = rate * root / (1 - BETAS[0] ** (age + 1)), 1 - rate * budget.weight_decay
        for k in range(len(self.begun)):  # the students of a policy fit into the processor's cache
            for parameter, gradient, first, second in zip(self.parameters, gradients, *self.moments, strict=True):
                p, g, m, v = parameter[k], gradient[k], first[k], second[k]
                if (age[k] == 0).any():
                    m.masked_fill_(age[k] == 0, 0)
                    v.masked_fill_(age[k] == 0, 0)
                m.lerp_(g, 1 - BETAS[0])
                if budget.optimiser == "sgd":
                    p.sub_(10 * rate[k] * m)
                    continue
                v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
                p.mul_(kept[k]).sub_(v.sqrt().add_(EPSILON * root[k]).reciprocal_().mul_(m).mul_(size[k]))

    @torch.no_grad()
    def aucs(self, scans: Sequence[dict[str, Scans]], split: str) -> Tensor:
        """AUC of the central task, (K, S)."""
        logits = read(self.parameters, _stacked(scans, split, "features"))[..., 0]  # (K, S, N)
        positive = _stacked(scans, split, "target")[..., 0] > 0.5  # (S, N)
        ranks = torch.from_numpy(rankdata(logits, axis=-1))
        n_positive, n = positive.sum(dim=1), positive.shape[1]
        return ((ranks * positive).sum(dim=2) - n_positive * (n_positive + 1) / 2) / (n_positive * (n - n_positive))


def _start(size: Sequence[int], n_in: int, generator: torch.Generator) -> Tensor:
    """Random values as torch's linear layers begin with."""
    return (2 * torch.rand(size, generator=generator) - 1) * n_in**-0.5


def _stacked(scans: Sequence[dict[str, Scans]], split: str, part: str) -> Tensor:
    return torch.stack([getattr(of_seed[split], part) for of_seed in scans])


def _positive_weight(target: Tensor, known: Tensor) -> Tensor:
    """Negatives over positives of every seed and task among known labels, (S, T), 1 where a class is missing."""
    positives, n = (known & (target > 0.5)).sum(dim=1), known.sum(dim=1)
    return torch.where((positives > 0) & (positives < n), (n - positives) / positives.clamp(min=1), 1.0)


def read(parameters: Sequence[Tensor], features: Tensor) -> Tensor:
    """Features (S, B, D) to logits (K, S, B, T)."""
    weight, bias, head, offset = parameters
    return functional.relu(features @ weight + bias) @ head + offset


def losses_of(logits: Tensor, target: Tensor, known: Tensor, positive: Tensor) -> Tensor:
    """Mean cross-entropy over the known labels of a batch, (K, S, T); 0 for a task without any."""
    losses = functional.binary_cross_entropy_with_logits(
        logits, target.expand_as(logits), pos_weight=positive[:, None], reduction="none"
    )
    return (losses * known).sum(dim=2) / known.sum(dim=1).clamp(min=1)
