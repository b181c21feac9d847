"""Prepared scans and their labels, served to torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lungmtl.data.cohort import included


class ScanDataset(torch.utils.data.Dataset):
    """Prepared scans, read one file at a time: (volume, target, known).

    An item is the volume float16 (1, Z, Y, X) in [0, 1], the targets float32 (T,) with 0 where not known, and bool
    (T,) that says which are known.
    """

    def __init__(self, frame: pd.DataFrame, folder: str | Path, *, tasks: Sequence[str]):
        """Keep the rows that are not excluded and their targets, in the network's order; no scan is read yet.

        Raises:
            FileNotFoundError: If a scan is not in `folder`, where `prepare_cohort` puts it.
        """
        self.frame = included(frame)
        self.scans = self.frame["scan"].tolist()
        self.folder = Path(folder)
        self.tasks = tuple(tasks)
        labels = torch.tensor(self.frame[list(tasks)].to_numpy(dtype=np.float32))  # (N, T)
        self.known = ~labels.isnan()  # (N, T)
        self.target = labels.nan_to_num(0.0)  # (N, T)
        missing = [scan for scan in self.scans if not self._file(scan).is_file()]
        if missing:
            found = f"{len(missing)} of {len(self.scans)} missing, first {self._file(missing[0])}"
            raise FileNotFoundError(f"Every scan must be prepared. Found {found}.")

    def __len__(self) -> int:
        """Count the scans."""
        return len(self.scans)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read one scan."""
        array = np.load(self._file(self.scans[index]), allow_pickle=False)
        volume = torch.from_numpy(array).unsqueeze(0)  # (1, Z, Y, X)
        return volume, self.target[index], self.known[index]

    def predictions(self, probability: np.ndarray) -> pd.DataFrame:
        """Probabilities (N, T) and targets: scan, patient, split, task, target (NaN = not known), probability."""
        rows = self.frame[["scan", "patient", "split"]]
        target = self.target.masked_fill(~self.known, torch.nan).numpy()
        columns = zip(self.tasks, target.T, probability.T, strict=True)
        parts = [rows.assign(task=task, target=known, probability=found) for task, known, found in columns]
        return pd.concat(parts, ignore_index=True)

    def _file(self, scan: str) -> Path:
        return self.folder / f"{scan}.npy"
