"""Thumbnails of scans, and a gallery of them."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from lungmtl.data.grid import Grid, middle_voxel, to_grid
from lungmtl.data.volume import AIR_HU, Volume

THUMBNAILS = "thumbnails"
THUMBNAIL_MM = 2.5  # a pixel
THUMBNAIL_PIXELS = 144  # of one view, each way: 360 mm
THUMBNAIL_HU = (-1100, 300)
GREYS = 40  # few, so that the file is small
OUTLINE_RGB = (255, 140, 0)


def thumbnail(volume: Volume, lungs: np.ndarray | None) -> bytes:
    """Draw a coronal and an axial slice through the middle of the lungs, with the mask's outline, as a small PNG.

    Two views of 360 mm side by side, the patient's left on the right, the head up; where `lungs`, bool (Z, Y, X), is
    None, through the volume's middle and without an outline.
    """
    middle = middle_voxel(np.ones_like(volume.hu, dtype=bool) if lungs is None else lungs)
    views = [_view(volume, lungs, across, middle) for across in (1, 0)]
    pixels = np.hstack([views[0][::-1], views[1]])
    greys = [[round(255 * grey / (GREYS - 1))] * 3 for grey in range(GREYS)]
    drawing = Image.fromarray(pixels)
    drawing.putpalette(np.array([*greys, OUTLINE_RGB], dtype=np.uint8).ravel().tolist())
    file = io.BytesIO()
    drawing.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _view(volume: Volume, lungs: np.ndarray | None, across: int, middle: Sequence[int]) -> np.ndarray:
    """Palette indices of one slice, (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)."""
    slab = tuple(slice(middle[a], middle[a] + 1) if a == across else slice(None) for a in range(3))
    center_mm = tuple(0.0 if a == across else middle[a] * volume.spacing_mm[a] for a in range(3))
    spacing_mm = tuple(volume.spacing_mm[a] if a == across else THUMBNAIL_MM for a in range(3))
    shape = tuple(1 if a == across else THUMBNAIL_PIXELS for a in range(3))
    grid = Grid(center_mm, spacing_mm, shape)
    hu = to_grid(volume.hu[slab], volume.spacing_mm, grid, fill=AIR_HU, order=1)
    low, high = THUMBNAIL_HU
    pixels = np.rint((hu.clip(low, high) - low) / (high - low) * (GREYS - 1)).astype(np.uint8)
    if lungs is not None:
        inside = to_grid(lungs[slab], volume.spacing_mm, grid, fill=0, order=0).squeeze(across)
        pixels.squeeze(across)[inside & ~ndimage.binary_erosion(inside)] = GREYS
    return pixels.squeeze(across)


def gallery(scans: pd.DataFrame, out: str | Path, *, n_good: int, n_bad: int) -> str:
    """Show scans of `check_cohort` and their thumbnails in `out` as an HTML table.

    First at most `n_bad` that failed or are worth a look, then at most `n_good` others, evenly spread over the table.
    """
    is_good = scans["verdict"] == "ok"
    bad, good = scans[~is_good].sort_values("verdict", kind="stable").head(n_bad), scans[is_good]
    good = good.iloc[np.unique(np.linspace(0, len(good) - 1, min(n_good, len(good))).round().astype(int))]
    shown = pd.concat([bad, good])
    measures = [_measures(row) for row in shown.itertuples()]
    table = shown[["scan", "verdict"]].assign(reason=shown["reason"].map(html.escape), measures=measures)
    table.insert(3, "coronal, axial", [_picture(thumbnail_file(out, scan)) for scan in shown["scan"]])
    with pd.option_context("display.max_colwidth", None):
        return table.to_html(escape=False, index=False, border=0)


def _picture(file: Path) -> str:
    if not file.is_file():
        return ""
    code = base64.b64encode(file.read_bytes()).decode()
    size = f'style="min-width: {2 * THUMBNAIL_PIXELS}px"'
    return f'<img alt="coronal and axial slice" {size} src="data:image/png;base64,{code}">'


def _measures(row: tuple) -> str:
    """Geometry, HU and lungs of a scan, a line each; blank where it could not be read."""
    if pd.isna(row.n_slices):
        return ""
    lines = [f"{row.n_slices} slices, {row.slice_mm:.2f} mm apart", f"pixel {row.pixel_mm:.2f} mm"]
    lines.append(f"HU {row.hu_p01}, {row.hu_p50}, {row.hu_p99} (1, 50, 99 %)")
    lines += [] if pd.isna(row.lung_volume_l) else [f"lungs {row.lung_volume_l:.2f} L, {row.lung_p50} HU (median)"]
    return "<br>".join(lines)


def thumbnail_file(out: str | Path, scan: str) -> Path:
    """Where the thumbnail of a scan is in the folder of a check."""
    return Path(out) / THUMBNAILS / f"{scan}.png"
