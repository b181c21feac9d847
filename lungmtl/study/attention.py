"""Attention: where a run's network looks in a scan, and the structures that are marked there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from lungmtl import data
from lungmtl.sources import phantom
from lungmtl.study.plan import PREDICTIONS_FILE
from lungmtl.study.run import LoadedRun


class Look(NamedTuple):
    """A scan as a run's network sees it; everything but `attention` is on the network's input grid."""

    volume: np.ndarray  # prepared, float16 (Z, Y, X) in [0, 1]
    attention: np.ndarray  # of the central task, float32 (z, y, x), the feature grid; sums to 1
    marked: dict[str, np.ndarray]  # share of each voxel that a marked structure fills, float16 (Z, Y, X)

    @property
    def inside(self) -> np.ndarray:
        """The lungs, bool (Z, Y, X): as marked, otherwise the region that the network sees."""
        return self.marked["lungs"] > 0.5 if "lungs" in self.marked else self.volume > 0

    def drawn(self, structure: str, *, cell: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
        """Volume, attention, outline of a marked structure and the voxel to cut through, as figures take them.

        The voxel is the structure's fullest, or the centre of the highest attention where there is none of it.
        """
        outline = self.marked.get(structure, np.zeros(self.volume.shape)).astype(np.float32)
        peak = cell * np.array(np.unravel_index(self.attention.argmax(), self.attention.shape))
        center = np.unravel_index(outline.argmax(), outline.shape) if outline.any() else peak
        return self.volume, self.attention, outline, tuple(int(index) for index in center)


def positive_scans(folder: str | Path) -> list[str]:
    """Names of the test scans in a run's folder that have its central diagnosis, in order."""
    rows = pd.read_csv(Path(folder) / PREDICTIONS_FILE, dtype={"scan": str})
    is_positive = (rows["split"] == "test") & (rows["task"] == rows["task"].iloc[0]) & (rows["target"] == 1)
    return sorted(rows.loc[is_positive, "scan"])


def table_of(
    run: LoadedRun, scans: Sequence[str], *, cohort: str = "", cache_dir: str = ""
) -> tuple[Path, pd.DataFrame]:
    """The cohort that a run was trained on, in which these scans have an image: phantoms that are missing are made.

    Args:
        cohort: Path of the table where the record, which keeps no absolute path, does not lead to it.
        cache_dir: Folder of phantom cohorts instead of the record's.
    Returns:
        Path of the table, and the table by name of scan.
    """
    config = run.config
    path = Path(cohort or config.cohort)
    if not (cohort or config.cohort):
        path = phantom.make_scans(config.phantom.folder(cache_dir or config.cache_dir), config.phantom, scans)
    rules = {"tasks": config.tasks, "allow_outside": config.allow_outside, "allow_missing": True}
    return path, data.read_cohort(path, **rules).set_index("scan", drop=False)


def marked(scan: Mapping[str, str], root: str | Path) -> dict[str, np.ndarray]:
    """Structures that are marked in a scan, bool (Z, Y, X) each; empty if there are none.

    `scan` is a row of the cohort table in the folder `root`. A file in its column `nodule_mask` marks the `nodule`; a
    phantom's truth (`truth/<scan>.nii.gz`) its `lungs`, the `malignant nodule` and the `benign look-alike`.

    Raises:
        ScanError: If the grid of the file is not that of the scan.
    """
    truth = Path(root) / "truth" / f"{scan['scan']}.nii.gz"
    image, name = Path(root) / scan["image"], scan["scan"]
    if file := scan.get(data.NODULE_MASK, ""):
        return {"nodule": data.labels_on(Path(root) / file, image, name) > 0}
    if not truth.is_file():
        return {}
    labels = data.labels_on(truth, image, name)
    of_label = {"malignant nodule": phantom.TRUTH_MALIGNANT, "benign look-alike": phantom.TRUTH_BENIGN}
    return {"lungs": labels > 0, **{name: labels == label for name, label in of_label.items()}}


def look_at(run: LoadedRun, scan: Mapping[str, str], root: str | Path) -> Look:
    """`look` at a scan of a cohort, a row of the table in `root`, with its marked structures and its own mask."""
    image = Path(root) / scan["image"]
    own = data.own_lungs(str(Path(root) / scan["mask"]), image, scan["scan"]) if scan.get("mask") else None
    return look(run, data.read_volume(image), marked(scan, root), own=own)


def look(
    run: LoadedRun, volume: data.Volume, structures: Mapping[str, np.ndarray], *, own: data.Lungs | None = None
) -> Look:
    """Prepare a scan as in training, compute the network's attention, and resample the structures to its grid."""
    preparation = run.config.preparation
    prepared = data.prepare_scan(volume, preparation, own).tensor
    with torch.inference_mode():
        attention = run.network(torch.from_numpy(prepared).float()[None, None])[1][0, 0].numpy()
    if not structures:
        return Look(prepared, attention, {})
    size = {"spacing_mm": preparation.spacing_mm, "shape": preparation.shape}
    seen = own.whole(volume) if own else data.seen_mask(volume, preparation)
    grid = data.lung_grid(seen, volume.spacing_mm, **size)
    shares = {
        name: data.to_grid(mask.astype(np.float32), volume.spacing_mm, grid, fill=0, order=1).astype(np.float16)
        for name, mask in structures.items()
    }
    return Look(prepared, attention, shares)
