"""Settings of preparation: the grid and the window that make a CT the network's input, and their place in the cache."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from lungmtl.keys import Place, code_key, key

PREPARED_ENTRY = Place("lungmtl.data.prepared", "prepare_file")  # what a prepared scan executes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a CT is prepared.

    Attributes:
        spacing_mm: Voxel size of the result in mm, (z, y, x).
        shape: Voxels of the result, (z, y, x).
        window_hu: HU mapped to 0 and to 1.
        region: wide = the space inside the ribs, with less contrast for what is not in the lungs' air; tight = the air
            of the lungs, closed by 10 mm. Chosen by us: the paper masks by a segmentation and does not say what that
            does with disease at the wall.
    """

    spacing_mm: Sequence[float]
    shape: Sequence[int]
    window_hu: Sequence[float]
    region: str = "wide"

    @property
    def unused(self) -> tuple[str, ...]:
        """Modules that this preparation does not execute, though its code names them."""
        return () if self.region == "wide" else ("lungmtl.data.region",)

    def to_dict(self) -> dict[str, list]:
        """Plain values, the same whether they came as whole or as decimal numbers."""
        kinds = {"spacing_mm": float, "shape": int, "window_hu": float}
        values = {name: [kind(value) for value in getattr(self, name)] for name, kind in kinds.items()}
        return values | {"region": self.region}


def prepared_folder(preparation: Preparation, cache_dir: str | Path, root: str | Path) -> Path:
    """Where the scans of a cohort are, of which `root` is the table's folder; named by settings, code and root."""
    settings = json.dumps([preparation.to_dict(), str(Path(root).resolve())])
    return Path(cache_dir) / "prepared" / key(settings, code_key(PREPARED_ENTRY, without=preparation.unused))
