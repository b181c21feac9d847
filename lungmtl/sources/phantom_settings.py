"""Settings of a phantom cohort, and where in the cache it lies."""

import dataclasses
import hashlib
import json
from pathlib import Path

CODE_VERSION = 1  # raise it when a change alters the voxels: old cohorts are then left alone and a new one is made


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """Which phantom cohort.

    Attributes:
        n_train, n_validation, n_test: Scans per split, one scan per patient.
        seed: Seeds every draw; the same seed gives the same voxels and labels.
        label_noise: Chance that an auxiliary diagnosis column is recorded wrongly.
    """

    n_train: int
    n_validation: int
    n_test: int
    seed: int
    label_noise: float

    @property
    def splits(self) -> list[str]:
        """Split of every scan, in order."""
        return ["train"] * self.n_train + ["validation"] * self.n_validation + ["test"] * self.n_test

    def folder(self, cache_dir: str | Path) -> Path:
        """Folder of this cohort inside the cache, the same on every call."""
        key = json.dumps([CODE_VERSION, *dataclasses.astuple(self)])
        return Path(cache_dir) / f"phantom-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
