"""Figure of loss weights over time."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lungmtl.figures.marks import ordered
from lungmtl.figures.style import add_caption, new_figure, styled, task_label


@styled
def weight_timeline(steps: pd.DataFrame) -> Figure:
    """Loss weight of every task at every step, one strip of tasks per experiment; a line where ITW begins.

    Args:
        steps: experiment, step, phase and weight_<task> (positive, 0, or NaN = task not trained); of several seeds
            the first counts, because policies do not draw.
    """
    weights = steps.filter(like="weight_")
    names = [column.removeprefix("weight_") for column in weights]
    experiments = ordered(steps["experiment"])
    n_rows = -(-len(experiments) // 2)
    figure, axes = new_figure(
        width_in=8.5, height_in=1.0 + 0.95 * n_rows, rows=n_rows, columns=2, share_x=True, share_y=True
    )
    norm = LogNorm(weights[weights > 0].min(axis=None), weights.max(axis=None))
    for axis, experiment in zip(axes.flat, experiments, strict=False):
        one = steps[steps["experiment"] == experiment].drop_duplicates("step")
        mesh = _weight_strip(axis, one, names, norm)
        axis.set_title(experiment)
    for axis in axes.flat[len(experiments) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("optimiser step")
    figure.colorbar(mesh, ax=axes, label="loss weight", shrink=0.6, pad=0.01)
    n_steps = steps["step"].max() + 1
    add_caption(
        figure, f"{n_steps} steps. White: task not trained, or weight 0. Dashed line: ITW's final stage begins."
    )
    return figure


def _weight_strip(axis: Axes, steps: pd.DataFrame, names: list[str], norm: LogNorm) -> QuadMesh:
    grid = steps[[f"weight_{name}" for name in names]].to_numpy(float).T  # (T, steps)
    edges = np.append(steps["step"], steps["step"].iloc[-1] + 1)
    masked = np.ma.masked_invalid(np.where(grid > 0, grid, np.nan))
    mesh = axis.pcolormesh(edges, np.arange(len(names) + 1), masked, norm=norm, cmap="viridis", rasterized=True)
    axis.set_yticks(np.arange(len(names)) + 0.5, [task_label(name) for name in names])
    axis.set_ylim(len(names), 0)
    axis.grid(False)
    transfer = steps.loc[steps["phase"] == "transfer", "step"]
    if len(transfer):
        axis.axvline(transfer.min(), color="black", linestyle="--")
    return mesh
