"""Training settings: the same for every experiment of a study."""

import dataclasses

NETWORKS = {"attention": "model.MultiTaskNet"}  # name in params -> module of this folder and class
SAMPLERS = ("natural", "each", "turns", "focus")  # names in params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained; the fields are those of `study.RunConfig`.

    The learning rate rises linearly over `warmup` of the steps and falls linearly to 0 over the last quarter. An
    incomplete last batch is dropped. Of tied epochs `best_auc` takes the earliest.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    augment: bool
    selection: str
