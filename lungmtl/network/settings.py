"""Training settings: the same for every experiment of a study."""

import dataclasses

NETWORKS = {"attention": "model.MultiTaskNet"}  # name in params -> module of this folder and class
SAMPLERS = ("natural", "each", "turns", "focus")  # names in params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained.

    Attributes:
        epochs: Passes over the training scans; an incomplete last batch is dropped.
        batch_size: Scans per optimiser step.
        learning_rate: Peak of the schedule: linear rise over `warmup` of the steps, constant, linear fall to 0 over
            the last quarter.
        weight_decay: Of AdamW.
        warmup: Fraction of all steps, in [0, 1).
        augment: Flip, shift, rotate, scale and noise, in training only.
        selection: best_auc = highest validation AUC of the first task, the earliest if tied; last = last epoch.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    augment: bool
    selection: str
