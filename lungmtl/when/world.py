"""The feature phantom: scans as vectors whose diagnoses follow from hidden signs that tasks share to a given degree.

A scan is a vector x of standard normal features. A *sign* is a direction in it that shows beyond a threshold only,
max(d.x - 0.5, 0) in units of its deviation. Every task owns `UNITS` signs, all directions at right angles. The central
diagnosis reads its own signs with a random unit vector. An auxiliary diagnosis reads sqrt(relatedness) of the central
task's signs, with a random unit vector of its own, and sqrt(1 - relatedness) of its own signs: at 1 its labels tell
where the central signs are, though not how to read them; at 0 they tell nothing. Everything here is chosen by us,
before any policy was run on it; `STRENGTH` so that a reader who knows the truth has a mean AUC of 0.95 to 0.96
(standard deviation over seeds 0.03).
"""

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from lungmtl.experiments import TASKS

FEATURES, UNITS = 64, 4  # values of a scan; signs that a task owns
THRESHOLD = 0.5  # deviations beyond which a sign shows
SIGN_MEAN, SIGN_DEVIATION = 0.19780, 0.41299  # of max(z - 0.5, 0) where z is standard normal
STRENGTH = 10.0  # of the standardised logit
PREVALENCE = (0.38, 0.3, 0.3, 0.3, 0.3)  # as in the phantom cohort: of the central and of every auxiliary task
N_VALIDATION, N_TEST = 160, 4000  # test scans are cheap here: their part of an interval is small


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """What scans and labels are like.

    Attributes:
        relatedness: Share of an auxiliary logit's variance that comes from the central task's signs, in [0, 1].
        n_scans: Training scans.
        label_noise: Chance that an auxiliary label is recorded wrongly; the central one never is.
        correlation: Share of every logit's variance that is one common exposure, not in the features, in [0, 1).
        one_label: Keep one task's label per training scan, tasks in equal parts, instead of all.
    Raises:
        ValueError: If a value is outside its range.
    """

    relatedness: float
    n_scans: int
    label_noise: float = 0.1
    correlation: float = 0.0
    one_label: bool = False

    def __post_init__(self):
        for name, holds in (
            ("relatedness", 0 <= self.relatedness <= 1),
            ("n_scans", self.n_scans >= 40),
            ("label_noise", 0 <= self.label_noise < 0.5),
            ("correlation", 0 <= self.correlation < 1),
        ):
            if not holds:
                raise ValueError(f"`{name}` of a feature phantom is out of range. Found {getattr(self, name)!r}.")


class Scans(NamedTuple):
    """Scans of one split: features (N, D), labels as recorded (N, T), which of them are known (N, T), logits (N, T)."""

    features: Tensor
    target: Tensor
    known: Tensor
    truth: Tensor


def draw_scans(world: World, *, seed: int) -> dict[str, Scans]:
    """Draw a teacher and its scans for train, validation and test; one seed is one teacher and one training set."""
    generator = torch.Generator().manual_seed(seed)
    counts = {"train": world.n_scans, "validation": N_VALIDATION, "test": N_TEST}
    n = sum(counts.values())
    features = torch.randn(n, FEATURES, generator=generator)
    truth = _logits(features, world, generator)  # (N, T)
    uniform = torch.rand(n, len(TASKS), generator=generator).clamp(1e-6, 1 - 1e-6)
    risk = truth + uniform.logit()
    bounds = torch.stack([risk[:, t].quantile(1 - share) for t, share in enumerate(PREVALENCE)])
    target = (risk > bounds).float()
    wrong = torch.rand(n, len(TASKS), generator=generator) < world.label_noise
    wrong[:, 0] = False
    recorded = torch.where(wrong, 1 - target, target)
    known = torch.ones(n, len(TASKS), dtype=torch.bool)
    if world.one_label:
        turn = torch.randperm(world.n_scans, generator=generator) % len(TASKS)
        known[: world.n_scans] = torch.nn.functional.one_hot(turn, len(TASKS)).bool()
    parts = (tensor.split(list(counts.values())) for tensor in (features, recorded, known, truth))
    return {split: Scans(*part) for split, part in zip(counts, zip(*parts, strict=True), strict=True)}


def ceiling(scans: Scans) -> float:
    """AUC of the central task for a reader who knows every logit."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(scans.target[:, 0], scans.truth[:, 0]))


def _logits(features: Tensor, world: World, generator: torch.Generator) -> Tensor:
    n_tasks = len(TASKS)
    directions = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=generator))[0][:, : n_tasks * UNITS]
    signs = ((features @ directions - THRESHOLD).clamp(min=0) - SIGN_MEAN) / SIGN_DEVIATION
    signs = signs.unflatten(1, (n_tasks, UNITS))  # (N, T, U)
    central, own = (_unit_vectors(n_tasks, generator) for _ in range(2))  # (T, U)
    related = torch.full((n_tasks,), world.relatedness)
    related[0] = 1.0
    logits = related.sqrt() * (signs[:, 0] @ central.T) + (1 - related).sqrt() * (signs * own).sum(dim=2)
    exposure = torch.randn(len(features), 1, generator=generator)
    return STRENGTH * ((1 - world.correlation) ** 0.5 * logits + world.correlation**0.5 * exposure)


def _unit_vectors(n: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, UNITS, generator=generator), dim=1)
