"""Figures of scans: slices with outlines, slices under attention."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lungmtl.figures.style import new_figure, styled
from lungmtl.figures.words import captioned

TARGET_COLOR, PEAK_COLOR = "#39D353", "#00D5FF"  # over grey slices and the warm attention colours
MIN_PEAK = 10.0  # chosen by us: upper end of the colours at least, in multiples of an even map
SLICE_WHITE = 0.7  # of the window [0, 1]: soft tissue is white, and lung is not black
GREY = {"cmap": "gray", "interpolation": "nearest", "origin": "lower"}


class AttentionView(NamedTuple):
    """What is drawn of one scan; everything but `attention` is on the network's input grid."""

    title: str
    volume: np.ndarray  # (Z, Y, X) in [0, 1]
    attention: np.ndarray  # (z, y, x), the feature grid: voxel i lies on input voxel i * cell
    outline: np.ndarray  # (Z, Y, X), share of each voxel that the target fills; all 0 = nothing to outline
    center: tuple[int, int, int]  # input voxel (z, y, x) through which the slices go


@styled
def attention_slices(views: Sequence[AttentionView], *, spacing_mm: Sequence[float], cell: int, caption: str) -> Figure:
    """Axial, coronal and sagittal slice of each scan under its attention cells, with the target's outline.

    Attention is drawn against an even map, in which every feature voxel has 1; what is below that is transparent.

    Args:
        views: One row each.
        spacing_mm: Voxel size of the input grid in mm, (z, y, x).
        cell: Input voxels per feature voxel along each axis.
        caption: How many scans of which cohort, and what the outline is.
    """
    figure, axes = new_figure(width_in=8.5, height_in=1.0 + 3.0 * len(views), rows=len(views), columns=3)
    norm = LogNorm(1, max(MIN_PEAK, *(view.attention.max() * view.attention.size for view in views)))
    for row, view in zip(axes, views, strict=True):
        highest = f"highest {view.attention.max() * view.attention.size:.3g}"
        for across, heading in enumerate((f"{view.title}\naxial", f"{highest}\ncoronal", "\nsagittal")):
            mesh = _draw_slice(row[across], view, across, spacing_mm, cell, norm)
            row[across].set_title(heading)
        bar = figure.colorbar(mesh, ax=row, label="attention (1 = even map)", shrink=0.8, pad=0.01)
        bar.ax.yaxis.set_major_formatter("{x:g}")
    return captioned(
        figure,
        f"{caption} Squares: feature voxels; attention as a multiple of that of an even map, transparent at 1 and "
        "below. Cross: centre of the highest one, projected onto each slice. The patient's left is on the right in "
        "the first two columns.",
    )


def _draw_slice(
    axis: Axes, view: AttentionView, across: int, spacing_mm: Sequence[float], cell: int, norm: LogNorm
) -> QuadMesh:
    """Draw the slice across one axis through `view.center`; returns the attention layer."""
    rows, columns = (a for a in range(3) if a != across)
    grey, outline = (array.take(view.center[across], axis=across) for array in (view.volume, view.outline))
    axis.imshow(grey, vmin=0, vmax=SLICE_WHITE, **GREY)
    layer = min((view.center[across] + cell // 2) // cell, view.attention.shape[across] - 1)
    times = view.attention.take(layer, axis=across) * view.attention.size  # an even map's
    edges = [  # of the feature voxels' cells on the input grid, as in evidence.attention.touched_cells
        [-0.5, *(cell * np.arange(1, view.attention.shape[a]) - cell // 2 - 0.5), view.volume.shape[a] - 0.5]
        for a in (columns, rows)
    ]
    mesh = axis.pcolormesh(*edges, times, cmap="inferno", norm=norm, alpha=0.5 * norm(np.maximum(times, 1)))
    if outline.max() > 0:
        axis.contour(outline, levels=[outline.max() / 2], colors=TARGET_COLOR, linewidths=1.2)
    peak = cell * np.array(np.unravel_index(np.argmax(view.attention), view.attention.shape))
    axis.plot(peak[columns], peak[rows], "+", color=PEAK_COLOR, markersize=10, markeredgewidth=1.8)
    axis.set(xticks=[], yticks=[], aspect=spacing_mm[rows] / spacing_mm[columns])
    axis.grid(False)
    if across == 0:
        axis.invert_yaxis()  # the patient's back is below
    return mesh


class ScanView(NamedTuple):
    """A scan and where to cut it."""

    title: str
    array: np.ndarray  # (Z, Y, X), HU or a prepared tensor
    spacing_mm: tuple[float, float, float]  # (z, y, x)
    lungs: np.ndarray  # bool (Z, Y, X), outlined; all False = no outline
    center: tuple[int, int, int]  # voxel (z, y, x) through which the slices go


@styled
def scan_slices(views: Sequence[ScanView], *, window: Sequence[float], caption: str) -> Figure:
    """Coronal slices above, axial slices below, one column per scan, all with one scale in mm and one grey window.

    Args:
        views: One column each.
        window: Values drawn black and white.
        caption: How many scans of which cohort; what is drawn is added.
    """
    z_mm, y_mm, x_mm = np.max([np.multiply(view.array.shape, view.spacing_mm) for view in views], axis=0)
    height_in = 0.8 + 1.75 * (z_mm + y_mm) / x_mm
    figure, axes = new_figure(width_in=1.75 * len(views), height_in=height_in, rows=2, columns=len(views))
    for (coronal, axial), view in zip(axes.T, views, strict=True):
        _draw_plane(coronal, view, 1, window)
        _draw_plane(axial, view, 0, window)
        coronal.set_title(view.title, loc="center", fontsize=8.5)
        coronal.set(xlim=(-x_mm / 2, x_mm / 2), ylim=(-z_mm / 2, z_mm / 2))
        axial.set(xlim=(-x_mm / 2, x_mm / 2), ylim=(y_mm / 2, -y_mm / 2))  # the patient's back is below
    axes[0, 0].set_ylabel("coronal")
    axes[1, 0].set_ylabel("axial")
    outline = " Outline: lung mask." if any(view.lungs.any() for view in views) else ""
    grey = f"Grey from {window[0]:g} to {window[1]:g}, one scale."
    return captioned(figure, f"{caption} {grey}{outline} The patient's left is on the right.")


def _draw_plane(axis: Axes, view: ScanView, across: int, window: Sequence[float]) -> None:
    """Draw the slice across one axis through `view.center`, its axes in mm from the middle of the scan."""
    array, lungs = (volume.take(view.center[across], axis=across) for volume in (view.array, view.lungs))
    height_mm, width_mm = np.multiply(array.shape, np.delete(view.spacing_mm, across))
    extent = (-width_mm / 2, width_mm / 2, -height_mm / 2, height_mm / 2)
    axis.imshow(array.astype(np.float32), vmin=window[0], vmax=window[1], extent=extent, **GREY)
    if lungs.any():
        axis.contour(lungs, levels=[0.5], colors=PEAK_COLOR, linewidths=0.7, extent=extent, origin="lower")
    axis.set(xticks=[], yticks=[], facecolor="black")
    axis.grid(False)
    axis.spines[:].set_visible(False)
