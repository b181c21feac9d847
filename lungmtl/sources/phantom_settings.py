"""Settings of a phantom cohort, and where in the cache it lies."""

import dataclasses
import hashlib
import json
from pathlib import Path

CODE_VERSION = 1  # raise it when a change alters the voxels: old cohorts are then left alone and a new one is made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs:
    """What the patients and signs of a phantom cohort are like; the defaults are the phantom of the first studies.

    Attributes:
        relatedness: Share of the signs of emphysema and chronic bronchitis that is focal, in [0, 1]; see `signs`.
        exposure_severity: Share of an ill patient's severity that the exposure sets, in [0, 1].
        odds_ratios: Crude odds ratios of the auxiliary diagnoses with lung cancer, in the order of `TASKS`; empty
            leaves what the exposure alone makes, 1.1 to 1.7.
        prevalence: Of lung cancer.
        invisible: Share of the cancers without a nodule.
        wall_masses: Share of the other cancers whose nodule is a mass at the chest wall.
    """

    relatedness: float = 0.0
    exposure_severity: float = 0.0
    odds_ratios: tuple[float, ...] = ()
    prevalence: float = 0.4
    invisible: float = 0.0
    wall_masses: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "odds_ratios", tuple(self.odds_ratios))  # a list of a params file


USUAL = Knobs()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """Which phantom cohort.

    Attributes:
        n_train, n_validation, n_test: Scans per split, one scan per patient.
        seed: Seeds every draw; the same seed gives the same voxels and labels.
        label_noise: Chance that an auxiliary diagnosis column is recorded wrongly.
        knobs: What patients and signs are like.
    """

    n_train: int
    n_validation: int
    n_test: int
    seed: int
    label_noise: float
    knobs: Knobs = USUAL

    @property
    def splits(self) -> list[str]:
        """Split of every scan, in order."""
        return ["train"] * self.n_train + ["validation"] * self.n_validation + ["test"] * self.n_test

    def folder(self, cache_dir: str | Path) -> Path:
        """Folder of this cohort inside the cache, the same on every call."""
        *counted, knobs = dataclasses.astuple(self)
        turned = [knobs] if self.knobs != USUAL else []  # without them, the place that it always had
        key = json.dumps([CODE_VERSION, *counted, *turned])
        return Path(cache_dir) / f"phantom-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
