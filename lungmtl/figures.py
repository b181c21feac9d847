"""Figures of the study: a tidy frame in, a matplotlib Figure out.

Nothing here reads, saves or shows. Every function is decorated with `@styled`, takes its axes from
`new_figure`, and gives the number of scans and seeds and the name of the interval in its caption
(`add_caption`). An experiment has one colour, marker and line style in every figure (`looks`). A variant, named
BASE.change (ITW2.start0.5), stands beside its base, in the base's colour, with an open marker.

Sources: Okabe & Ito 2008 (colour-blind safe hues), https://jfly.uni-koeln.de/color.
"""

import io
import textwrap
from collections.abc import Hashable, Iterable, Sequence
from itertools import product
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter
from scipy.optimize import isotonic_regression

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "font.family": "DejaVu Sans",  # ships with matplotlib, so a figure is the same on every machine
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "0.35",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}
styled = matplotlib.rc_context(STYLE)  # used as a decorator: the style holds inside the function only

# one family, one hue: STL black, BW amber, PFLP blue (darker = heavier auxiliaries), ITW vermillion
COLORS = {
    "STL": "#000000",
    "MTL": "#E6A800",
    "MTL0": "#9CCBEA",
    "MTL1": "#6AAEDC",
    "MTL2": "#3A8CC8",
    "MTL3": "#1566A8",
    "MTL4": "#073B73",
    "ITW1": "#F08A5D",
    "ITW2": "#D1490C",
    "ITW3": "#7E2300",
}
FAMILIES = {"STL": "STL", "MTL": "BW", "ITW1": "ITW", "ITW2": "ITW", "ITW3": "ITW"} | {
    f"MTL{number}": "PFLP" for number in range(5)
}
FAMILY_MARKERS = {"STL": "D", "BW": "s", "PFLP": "o", "ITW": "^", "other": "X"}
FAMILY_LINES = {"STL": (0, (5, 1.5)), "BW": (0, (1.2, 1.2)), "PFLP": "-", "ITW": "-", "other": (0, (4, 1, 1, 1))}
FOREST_HEADS = ("difference [interval]", "p differs", "p equivalent", "verdict")
BESIDE = ((8, "left"), (172, "right"), (240, "right"), (254, "left"))  # offset in points and alignment of columns
VARIANT_MARKERS = ("o", "s", "^", "D", "v", "p", "<", "h", ">", "P", "*", "d")  # open, in order of name
VARIANT_LINES = ((0, (5, 1)), (0, (2, 1)), (0, (7, 1, 2, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
OTHER_COLORS = ("#009E73", "#CC79A7", "#7F7F7F", "#5B3E96", "#A8B400")  # experiments outside Table 2, in order
TASK_COLORS = ("#D1490C", "#009E73", "#E6A800", "#3A8CC8", "#A0559A")  # by position: the central task first
SPLIT_COLORS = ("#3A8CC8", "#E6A800", "#7F7F7F")  # train, validation, test
TARGET_COLOR, PEAK_COLOR = "#39D353", "#00D5FF"  # over grey slices and the warm attention colours
PART_COLORS = {"seeds": "#D1490C", "scans": "#3A8CC8"}  # the two parts of a variance
UNITS = {"mm": "mm", "hu": "HU", "kg": "kg", "cm": "cm", "years": "years"}  # last words of column names
AGAINST_ALL = ", against all negatives"  # ends the name of a subgroup of positives
MINUS = "\N{MINUS SIGN}"
LEVEL = 0.05  # of the adjusted p values, two-sided for a difference
COVERAGE_BAND = (0.93, 0.97)  # chosen by us: a 95 % interval outside it would mislead
COVERAGE_ROWS = 40  # chosen by us: beyond it there are two columns
LABEL_IN = 0.14  # height of a line's name beside an axis
SIZE_TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
DIFFERENCE_TICKS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
SLICE_WHITE = 0.7  # of the window [0, 1]: soft tissue is white, and lung is not black


class Look(NamedTuple):
    """How one experiment is drawn, in every figure."""

    color: str
    marker: str
    line: str | tuple
    is_filled: bool = True


class NotebookFigure(Figure):
    """A Figure outside pyplot that a notebook shows by itself. It is laid out once, however often it is saved."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw, and keep the layout that this has found."""
        super().draw(renderer)
        self.set_layout_engine(None)  # of matplotlib's settings, which have none

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def base_of(experiment: str) -> str:
    """Experiment of which this one is a variant, the text before its first dot; itself if there is none."""
    return experiment.partition(".")[0]


def looks(experiments: Iterable[str]) -> dict[str, Look]:
    """Colour, marker and line style of every experiment; Table 2 experiments always have the same one.

    A variant has its base's colour, and a marker by its place among the base's variants.
    """
    names = list(dict.fromkeys(experiments))
    others = [base for base in dict.fromkeys(map(base_of, names)) if base not in COLORS]
    colors = COLORS | {base: OTHER_COLORS[i % len(OTHER_COLORS)] for i, base in enumerate(others)}
    return {name: _look(name, names, colors[base_of(name)]) for name in names}


def _look(name: str, names: list[str], color: str) -> Look:
    base = base_of(name)
    if name == base:
        family = FAMILIES.get(name, "other")
        return Look(color, FAMILY_MARKERS[family], FAMILY_LINES[family])
    place = sorted(other for other in names if base_of(other) == base != other).index(name)
    line = VARIANT_LINES[place % len(VARIANT_LINES)]
    return Look(color, VARIANT_MARKERS[place % len(VARIANT_MARKERS)], line, is_filled=False)


def task_colors(tasks: Iterable[str]) -> dict[str, str]:
    """Colour of every task, by its position: the central task comes first and is vermillion."""
    return {task: TASK_COLORS[i % len(TASK_COLORS)] for i, task in enumerate(tasks)}


def task_label(task: str) -> str:
    """A task's name for readers: lung_cancer -> lung cancer, copd -> COPD."""
    return "COPD" if task == "copd" else task.replace("_", " ")


def attribute_label(name: str) -> str:
    """A column's name for readers: nodule_mm -> nodule (mm); tasks as `task_label` has them."""
    words, _, unit = name.rpartition("_")
    return f"{words.replace('_', ' ')} ({UNITS[unit]})" if unit in UNITS and words else task_label(name)


def new_figure(
    *,
    width_in: float,
    height_in: float,
    rows: int = 1,
    columns: int = 1,
    share_x: bool = False,
    share_y: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, np.ndarray]:
    """An empty figure outside pyplot (shown once by a notebook) and its axes, always (rows, columns)."""
    figure = NotebookFigure(figsize=(width_in, height_in), layout="constrained")
    shared = {"sharex": share_x, "sharey": share_y}
    return figure, figure.subplots(rows, columns, **shared, height_ratios=height_ratios, squeeze=False)


def add_caption(figure: Figure, text: str) -> None:
    """Write a wrapped caption under the figure: scans, seeds and the name of the interval belong in it."""
    columns = int(figure.get_figwidth() * 18)
    figure.supxlabel("\n".join(textwrap.wrap(text, columns)), x=0.01, ha="left", fontsize=7.5, color="0.35")


@styled
def weight_timeline(steps: pd.DataFrame) -> Figure:
    """Loss weight of every task at every step, one strip of tasks per experiment; a line where ITW begins.

    Args:
        steps: experiment, step, phase and weight_<task> (positive, 0, or NaN = task not trained); of several seeds
            the first counts, because policies do not draw.
    """
    weights = steps.filter(like="weight_")
    names = [column.removeprefix("weight_") for column in weights]
    experiments = _in_order(steps["experiment"])
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


class AttentionView(NamedTuple):
    """What is drawn of one scan, everything on the network's input grid but for `attention`."""

    title: str
    volume: np.ndarray  # (Z, Y, X) in [0, 1]
    attention: np.ndarray  # (z, y, x), the feature grid: voxel i lies on input voxel i * cell
    outline: np.ndarray  # (Z, Y, X), share of each voxel that the target fills; all 0 = nothing to outline
    center: tuple[int, int, int]  # input voxel (z, y, x) through which the slices go


@styled
def attention_slices(views: Sequence[AttentionView], *, spacing_mm: Sequence[float], cell: int, caption: str) -> Figure:
    """Axial, coronal and sagittal slice of each scan under its attention cells, with the target's outline.

    Args:
        views: One row each.
        spacing_mm: Voxel size of the input grid in mm, (z, y, x).
        cell: Input voxels per feature voxel along each axis.
        caption: How many scans of which cohort, and what the outline is.
    """
    figure, axes = new_figure(width_in=8.5, height_in=1.0 + 2.6 * len(views), rows=len(views), columns=3)
    for row, view in zip(axes, views, strict=True):
        headings = (view.title, f"highest voxel {view.attention.max():.3f}", f"even {1 / view.attention.size:.3f}")
        for axis, across, name in zip(row, range(3), ("axial", "coronal", "sagittal"), strict=True):
            mesh = _draw_slice(axis, view, across, spacing_mm, cell)
            axis.set_title(f"{headings[across]}\n{name}")
        figure.colorbar(mesh, ax=row, label="attention / its maximum", shrink=0.8, pad=0.01)
    add_caption(
        figure,
        f"{caption} Squares: feature voxels, transparent where attention is low. Cross: centre of the highest, "
        "projected into each slice; even = every voxel the same. The patient's left is on the right in the first two.",
    )
    return figure


def _draw_slice(axis: Axes, view: AttentionView, across: int, spacing_mm: Sequence[float], cell: int) -> QuadMesh:
    """Draw the slice across one axis through `view.center`; returns the attention layer."""
    rows, columns = [a for a in range(3) if a != across]
    slices = [array.take(view.center[across], axis=across) for array in (view.volume, view.outline)]
    axis.imshow(slices[0], cmap="gray", vmin=0, vmax=SLICE_WHITE, interpolation="nearest", origin="lower")
    layer = min((view.center[across] + cell // 2) // cell, view.attention.shape[across] - 1)
    share = view.attention.take(layer, axis=across) / view.attention.max()
    edges = [_cell_edges(view.volume.shape[a], cell, view.attention.shape[a]) for a in (columns, rows)]
    mesh = axis.pcolormesh(*edges, share, cmap="inferno", vmin=0, vmax=1, alpha=0.5 * share)
    if slices[1].max() > 0:
        axis.contour(slices[1], levels=[slices[1].max() / 2], colors=TARGET_COLOR, linewidths=1.2)
    peak = cell * np.array(np.unravel_index(np.argmax(view.attention), view.attention.shape))
    axis.plot(peak[columns], peak[rows], "+", color=PEAK_COLOR, markersize=10, markeredgewidth=1.8)
    axis.set(xticks=[], yticks=[], aspect=spacing_mm[rows] / spacing_mm[columns])
    axis.grid(False)
    if across == 0:
        axis.invert_yaxis()  # the patient's back is below
    return mesh


def _cell_edges(n_voxels: int, cell: int, n_cells: int) -> np.ndarray:
    """Edges of the feature voxels' cells on the input grid, as `metrics.touched_cells` has them: (n_cells + 1,)."""
    inner = cell * np.arange(1, n_cells) - cell // 2 - 0.5
    return np.array([-0.5, *inner, n_voxels - 0.5])


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


@styled
def auc_by_task(aucs: pd.DataFrame) -> Figure:
    """AUC of every experiment, one panel per task on a shared axis.

    Args:
        aucs: experiment, task, auc, low, high, interval, n_seeds, n, positives; NaN rows are left out.
    """
    aucs = aucs.dropna(subset="auc")
    tasks, experiments = list(dict.fromkeys(aucs["task"])), _in_order(aucs["experiment"])
    height_in = 1.5 + 0.23 * len(experiments)
    figure, axes = new_figure(
        width_in=1.2 + 1.75 * len(tasks), height_in=height_in, columns=len(tasks), share_x=True, share_y=True
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        rows = aucs[aucs["task"] == task]
        positions = [experiments.index(name) for name in rows["experiment"]]
        _dots_with_intervals(axis, rows, "auc", positions, looks(experiments))
        axis.axvline(0.5, color="0.6", linewidth=0.9, linestyle=":")
        first = rows.iloc[0]
        axis.set_title(task_label(task), pad=17)
        axis.text(0, 1.015, f"{first['positives']} of {first['n']} scans", transform=axis.transAxes, color="0.35")
        axis.set_xlabel("test AUC")
    _name_rows(axes[0, 0], experiments)
    add_caption(figure, f"Mean over {_seeds(aucs)} with its {_names(aucs)} interval. Dotted line: chance.")
    return figure


def verdicts(comparisons: pd.DataFrame) -> pd.Series:
    """What each row of a comparison settles, from its two adjusted p values.

    Args:
        comparisons: difference, p_holm, equivalence_p_holm, margin.
    Returns:
        "higher" or "lower" where no difference is rejected, "equivalent within <margin>" where differences beyond the
        margin are, both joined by a comma, and "not settled" otherwise; "" where there is no difference.
    """
    return comparisons.apply(_verdict, axis=1, result_type="reduce").astype(object)


def _verdict(row: pd.Series) -> str:
    if np.isnan(row["difference"]):
        return ""
    side = "higher" if row["difference"] > 0 else "lower"
    equivalent = f"equivalent within {row['margin']:g}"
    found = [word for p, word in ((row["p_holm"], side), (row["equivalence_p_holm"], equivalent)) if p < LEVEL]
    return ", ".join(found) or "not settled"


@styled
def forest(comparisons: pd.DataFrame) -> Figure:
    """Paired AUC differences with 95 % (thin) and 90 % (thick) intervals, a panel per reference, and the verdict.

    Args:
        comparisons: experiment, reference, difference, low, high, low_90, high_90, p_holm, equivalence_p_holm, margin,
            interval, n_family, n_seeds, n, positives; NaN rows are left out.
    """
    rows = comparisons.dropna(subset="difference")
    panels = {reference: part for reference, part in rows.groupby("reference", sort=False)}
    sizes = [len(part) + 1.6 for part in panels.values()]
    figure, axes = new_figure(
        width_in=9.6, height_in=0.9 + 0.25 * sum(sizes), rows=len(panels), share_x=True, height_ratios=sizes
    )
    for axis, (reference, part) in zip(axes[:, 0], panels.items(), strict=True):
        _draw_forest(axis, part, looks(rows["experiment"]))
        axis.set_title(f"against {reference}")
    axes[-1, 0].set_xlabel("difference of test AUC")
    first = rows.iloc[0]
    add_caption(
        figure,
        f"Paired by scan and seed: {first['n']} test scans, {first['positives']} positive, {_seeds(rows)}; "
        f"{_names(rows)} interval (thin), 90 % (thick). Grey band: within {first['margin']:g} of the reference; a 90 % "
        "interval inside it is equivalence at 5 % before adjustment. p of no difference and of a difference beyond the "
        f"band, each after Holm over the family of {first['n_family']} comparisons.",
    )
    return figure


def _draw_forest(axis: Axes, part: pd.DataFrame, style: dict[str, Look]) -> None:
    experiments = _in_order(part["experiment"])
    positions = [experiments.index(name) for name in part["experiment"]]
    _draw_band(axis, part["margin"].iloc[0])
    _dots_with_intervals(axis, part, "difference", positions, style)
    _write_beside(axis, -0.9, FOREST_HEADS, color="0.35")
    for position, row, verdict in zip(positions, part.itertuples(), verdicts(part), strict=True):
        texts = (_with_interval(row.difference, row.low, row.high), _p(row.p_holm), _p(row.equivalence_p_holm), verdict)
        _write_beside(axis, position, texts, color="black")
    _name_rows(axis, experiments)


@styled
def roc_curves(curves: pd.DataFrame, aucs: pd.DataFrame) -> Figure:
    """ROC curves of one task, one panel per experiment: thin = a seed, thick = mean, grey = the first experiment.

    Args:
        curves: experiment, seed, false_positive_rate, sensitivity on the same rates for every run.
        aucs: The rows of that task: experiment, task, auc, low, high, interval, n_seeds, n, positives.
    """
    experiments = _in_order(curves["experiment"])
    n_rows, n_columns = _grid(len(experiments))
    figure, axes = new_figure(
        width_in=max(0.6 + 1.95 * n_columns, 4.5),
        height_in=0.9 + 2.05 * n_rows,
        rows=n_rows,
        columns=n_columns,
        share_x=True,
        share_y=True,
    )
    wide = curves.pivot_table(index="false_positive_rate", columns=["experiment", "seed"], values="sensitivity")
    of_experiment = aucs.set_index("experiment")
    for axis, experiment in zip(axes.flat, experiments, strict=False):
        look, runs, row = looks(experiments)[experiment], wide[experiment], of_experiment.loc[experiment]
        _roc_line(axis, wide[experiments[0]].mean(axis=1), color="0.6", linewidth=1.2)
        for seed in runs if runs.shape[1] > 1 else ():
            _roc_line(axis, runs[seed], color=look.color, linewidth=0.6, alpha=0.5)
        _roc_line(axis, runs.mean(axis=1), color=look.color, linewidth=1.9)
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.9, linestyle=":")
        axis.set_title(experiment)
        text = f"AUC {row['auc']:.2f}\n[{row['low']:.2f}, {row['high']:.2f}]"
        axis.text(0.97, 0.05, text, transform=axis.transAxes, ha="right", va="bottom")
        axis.set_aspect("equal")
    _trim(axes, len(experiments), x_label="1 - specificity", y_label="sensitivity")
    first = aucs.iloc[0]
    add_caption(
        figure,
        f"{_sentence(first['task'])}, {first['n']} test scans, {first['positives']} positive, "
        f"{_seeds(aucs)}. Thin: one seed; thick: mean over seeds; grey: mean of {experiments[0]}; dotted: chance. "
        f"In brackets: {_names(aucs)}.",
    )
    return figure


@styled
def learning_curves(history: pd.DataFrame, *, task: str = "", value: str = "loss") -> Figure:
    """Training of every experiment: AUC (validation) or loss (training dashed, validation solid) of one task.

    Args:
        history: experiment, seed, epoch (from 0), split, task, loss, auc.
        task: The task shown; empty = the first one.
        value: auc or loss.
    """
    task = task or history["task"].iloc[0]
    rows = history[(history["task"] == task) & history[value].notna()]
    if value == "auc":
        rows = rows[rows["split"] == "validation"]
    experiments = _in_order(rows["experiment"])
    n_rows, n_columns = _grid(len(experiments))
    figure, axes = new_figure(
        width_in=max(0.6 + 1.95 * n_columns, 4.5),
        height_in=0.9 + 1.6 * n_rows,
        rows=n_rows,
        columns=n_columns,
        share_x=True,
        share_y=True,
    )
    for axis, experiment in zip(axes.flat, experiments, strict=False):
        color = looks(experiments)[experiment].color
        part = rows[rows["experiment"] == experiment]
        for _, run in part[part["split"] == "validation"].groupby("seed"):
            axis.plot(run["epoch"] + 1, run[value], color=color, linewidth=0.6, alpha=0.5)
        for split, line in {"train": "--", "validation": "-"}.items():
            mean = part[part["split"] == split].groupby("epoch")[value].mean()
            axis.plot(mean.index + 1, mean, color=color, linestyle=line, linewidth=1.9)
        axis.set_title(experiment)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    _trim(axes, len(experiments), x_label="epoch", y_label="validation AUC" if value == "auc" else "loss")
    seeds = rows.groupby("experiment")["seed"].nunique().rename("n_seeds").to_frame()
    splits = "" if value == "auc" else "Solid: validation; dashed: training, mean only. "
    add_caption(
        figure,
        f"{_sentence(task)}, {_seeds(seeds)}. Thin: one seed; thick: mean over seeds. {splits}"
        "No interval: validation curves are not a result.",
    )
    return figure


@styled
def run_seconds(seconds: pd.DataFrame) -> Figure:
    """Mean run time of every experiment by part, with the range over seeds.

    Args:
        seconds: experiment, n_seeds, prepare, train, evaluate, total, total_min, total_max.
    """
    experiments = _in_order(seconds["experiment"])
    seconds = seconds.set_index("experiment").loc[experiments].reset_index()
    figure, axes = new_figure(width_in=6.2, height_in=1.4 + 0.23 * len(experiments))
    axis, left = axes[0, 0], np.zeros(len(experiments))
    shades = {"prepare": "0.75", "train": None, "evaluate": "0.45"}
    colors = [looks(experiments)[name].color for name in experiments]
    for part, shade in shades.items():
        axis.barh(experiments, seconds[part], left=left, height=0.62, color=shade or colors)
        left += seconds[part].to_numpy()
    spread = np.abs(seconds[["total_min", "total_max"]].to_numpy().T - seconds["total"].to_numpy())
    axis.errorbar(seconds["total"], experiments, xerr=spread, fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
    for position, row in enumerate(seconds.itertuples()):
        axis.annotate(f"{row.total:.0f} s", (row.total_max, position), (5, 0), textcoords="offset points", va="center")
    axis.margins(x=0.1)
    axis.set_xlim(left=0)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("seconds per run")
    add_caption(
        figure,
        f"Mean over {_seeds(seconds)}: preparation (light grey), training (colour), evaluation (dark grey); "
        "whiskers: fastest and slowest seed.",
    )
    return figure


@styled
def published_aucs(published: pd.DataFrame) -> Figure:
    """The paper's AUCs beside ours, grouped by the paper's four settings.

    Args:
        published: setting, experiment, paper_auc, paper_n, auc, low, high, interval, n_seeds, n.
    """
    settings = list(dict.fromkeys(published["setting"]))
    n_rows = len(published) + 0.6 * len(settings)
    figure, axes = new_figure(width_in=7.2, height_in=1.6 + 0.25 * n_rows)
    axis, position, ticks = axes[0, 0], 0.0, {}
    for setting in settings:
        rows = published[published["setting"] == setting]
        positions = position + np.arange(len(rows))
        ticks |= dict(zip(positions, rows["experiment"], strict=True))
        is_known = rows["auc"].notna().to_numpy()
        _dots_with_intervals(axis, rows[is_known], "auc", positions[is_known], looks(published["experiment"]))
        paper_auc, edges = rows["paper_auc"].iloc[0], [positions[0] - 0.35, positions[-1] + 0.35]
        axis.plot([paper_auc] * 2, edges, color="0.35", linewidth=4, alpha=0.35, solid_capstyle="butt")
        text = f"{setting}\npaper: {paper_auc:.3f}"
        axis.text(1.02, positions.mean(), text, transform=axis.get_yaxis_transform(), va="center")
        position = positions[-1] + 1.6
    axis.set_yticks(list(ticks), list(ticks.values()))
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("test AUC, lung cancer")
    ours = published.dropna(subset="auc")
    add_caption(
        figure,
        f"Two different cohorts. Points: this study, {int(ours['n'].iloc[0])} test scans, mean over {_seeds(ours)}, "
        f"{_names(ours)} interval. Grey bars: the paper, {published['paper_n'].iloc[0]} test scans of NLST and "
        "Vanderbilt, no interval published; it does not say which experiment its last two values belong to, so all "
        "candidates are shown.",
    )
    return figure


@styled
def sensitivity(comparisons: pd.DataFrame, selected: pd.DataFrame) -> Figure:
    """Whether a conclusion survives other choices: every variant's difference below its base's, a panel per reference.

    Args:
        comparisons: As `forest` takes it.
        selected: group (a base), experiment (the one of the group that validation scans chose); others are ignored.
    """
    rows = comparisons.dropna(subset="difference")
    groups = _variant_groups(rows["experiment"])
    positions = _grouped_positions(groups, gap=0.7)
    references = list(dict.fromkeys(rows["reference"]))
    figure, axes = new_figure(
        width_in=1.2 + 4.2 * len(references),
        height_in=1.5 + 0.23 * (max(positions.values()) + 1),
        columns=len(references),
        share_x=True,
        share_y=True,
    )
    for axis, reference in zip(axes[0], references, strict=True):
        part = rows[(rows["reference"] == reference) & rows["experiment"].isin(positions)]
        if reference in positions:
            _write_right(axis, positions[reference], "the reference", offset_pt=8, side="left", color="0.5")
        _draw_sensitivity(axis, part, positions, set(selected["experiment"]), looks(rows["experiment"]))
        axis.set_title(f"against {reference}")
        axis.set_xlabel("difference of test AUC")
    _name_groups(axes, {tuple(name.partition(".")[::2]): at for name, at in positions.items()}, {})
    add_caption(figure, _sensitivity_caption(rows))
    return figure


def _draw_sensitivity(
    axis: Axes, part: pd.DataFrame, positions: dict[str, float], chosen: set[str], style: dict[str, Look]
) -> None:
    _draw_band(axis, part["margin"].iloc[0])
    _dots_with_intervals(axis, part, "difference", [positions[name] for name in part["experiment"]], style)
    for row, verdict in zip(part.itertuples(), verdicts(part), strict=True):
        position = positions[row.experiment]
        _write_right(axis, position, verdict, offset_pt=8, side="left", color="black")
        if row.experiment in chosen:
            axis.plot(row.difference, position, "o", color="none", markeredgecolor="black", markersize=11)
        if row.experiment == base_of(row.experiment):
            last = max(place for name, place in positions.items() if base_of(name) == row.experiment)
            look = {"color": style[row.experiment].color, "linewidth": 0.9, "linestyle": (0, (3, 2))}
            axis.plot([row.difference] * 2, [position, last + 0.35], **look)


def _sensitivity_caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        "Bold: the experiment as in Table 2, its difference carried down (dashed); below it, the same with one setting "
        f"changed. Ring: what validation scans chose of its group. {first['n']} test scans, {first['positives']} "
        f"positive, {_seeds(rows)}; {_names(rows)} interval (thin), 90 % (thick). Grey band: within "
        f"{first['margin']:g} of the reference. Verdicts after Holm over the family of {first['n_family']} comparisons."
    )


@styled
def variance_parts(parts: pd.DataFrame) -> Figure:
    """Variance of a mean over seeds: the part of the seeds and the part of the test scans, a panel per quantity.

    Args:
        parts: experiment, reference ("" = the AUC itself), seed_variance, patient_variance, seed_share, n_seeds, n;
            NaN rows are left out.
    """
    rows = parts.dropna(subset=["seed_variance", "patient_variance"])
    references = list(dict.fromkeys(rows["reference"]))
    experiments = _in_order(rows["experiment"])
    figure, axes = new_figure(
        width_in=1.2 + 3.0 * len(references),
        height_in=1.6 + 0.23 * len(experiments),
        columns=len(references),
        share_x=True,
        share_y=True,
    )
    for axis, reference in zip(axes[0], references, strict=True):
        _draw_variances(axis, rows[rows["reference"] == reference], experiments)
        axis.set_title(f"difference from {reference}" if reference else "AUC")
        axis.set_xlabel("variance, 1 = standard error of 0.01")
    _name_rows(axes[0, 0], experiments)
    axes[0, 0].set_xlim(0, 1.2e4 * (rows["seed_variance"] + rows["patient_variance"]).max())  # room for the shares
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    add_caption(
        figure,
        f"Variance of the mean over {_seeds(rows)} on {rows['n'].iloc[0]} test scans, in units of 0.01 squared: what "
        "other seeds and what other scans would change. Beside the bars: the share of the seeds. More seeds shrink the "
        "first part, more test scans the second.",
    )
    return figure


def _draw_variances(axis: Axes, rows: pd.DataFrame, experiments: list[str]) -> None:
    positions = np.array([experiments.index(name) for name in rows["experiment"]])
    seeds, scans = (1e4 * rows[f"{part}_variance"].to_numpy() for part in ("seed", "patient"))
    axis.barh(positions, seeds, height=0.6, color=PART_COLORS["seeds"], label="other seeds")
    axis.barh(positions, scans, left=seeds, height=0.6, color=PART_COLORS["scans"], label="other test scans")
    for position, end, share in zip(positions, seeds + scans, rows["seed_share"], strict=True):
        axis.annotate(_percent(share), (end, position), (4, 0), textcoords="offset points", va="center")
    axis.grid(visible=False, axis="y")


@styled
def reliability(bins: pd.DataFrame, *, caption: str) -> Figure:
    """Observed share of positive scans against predicted probability, one panel per experiment.

    Args:
        bins: experiment, predicted, observed, low, high, n.
        caption: Which task, scans and seeds, and the name of the interval.
    """
    experiments = _in_order(bins["experiment"])
    n_rows, n_columns = _grid(len(experiments))
    figure, axes = new_figure(
        width_in=max(0.6 + 1.95 * n_columns, 4.5),
        height_in=0.9 + 2.05 * n_rows,
        rows=n_rows,
        columns=n_columns,
        share_x=True,
        share_y=True,
    )
    for axis, experiment in zip(axes.flat, experiments, strict=False):
        part, look = bins[bins["experiment"] == experiment].sort_values("predicted"), looks(experiments)[experiment]
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.9, linestyle=":")
        axis.fill_between(part["predicted"], part["low"], part["high"], color=look.color, alpha=0.22, linewidth=0)
        axis.plot(part["predicted"], part["observed"], color=look.color)
        for x, y in zip(part["predicted"], part["observed"], strict=True):
            _dot(axis, x, y, look)
        axis.set(title=experiment, aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    _trim(axes, len(experiments), x_label="predicted", y_label="observed")
    add_caption(figure, f"{caption} Dotted: perfect calibration; below it, risk is predicted too high.")
    return figure


@styled
def power(detectable: pd.DataFrame, *, n: int, published_n: int, caption: str) -> Figure:
    """Smallest AUC difference that a test set of a size would show, a row per reference, a column per n of seeds.

    Args:
        detectable: experiment, reference, n, detectable, n_seeds; a line per experiment.
        n: Test scans of this study, marked.
        published_n: Test scans of the paper, marked.
        caption: Power and level, and what is taken from which scans.
    """
    rows = detectable.dropna(subset="detectable")
    references, n_seeds = list(dict.fromkeys(rows["reference"])), sorted(set(rows["n_seeds"]))
    n_lines = max(rows[rows["reference"] == reference]["experiment"].nunique() for reference in references)
    panel_in = max(2.6, 0.4 + LABEL_IN * n_lines)
    figure, axes = new_figure(
        width_in=1 + 4.2 * len(n_seeds),
        height_in=0.9 + (panel_in + 0.35) * len(references),
        rows=len(references),
        columns=len(n_seeds),
        share_x=True,
        share_y=True,
    )
    places = product(references, n_seeds)
    for axis, (reference, seeds) in zip(axes.flat, places, strict=True):
        part = rows[(rows["reference"] == reference) & (rows["n_seeds"] == seeds)]
        _draw_power(axis, part, looks(rows["experiment"]))
        _mark_sizes(axis, {f"this study, {n}": n, f"paper, {published_n}": published_n})
        axis.set_title(f"against {reference}, {seeds} seed{'s' if seeds > 1 else ''}", pad=16)
        axis.set(xlabel="test scans" if reference == references[-1] else "", ylim=_decades(rows["detectable"]))
        _label_ends(axis, part, panel_in=panel_in)
    for axis in axes[:, 0]:
        axis.set_ylabel("detectable difference of AUC")
    add_caption(figure, caption)
    return figure


def _draw_power(axis: Axes, part: pd.DataFrame, style: dict[str, Look]) -> None:
    for experiment, line in part.sort_values("n").groupby("experiment"):
        look = style[experiment]
        axis.plot(line["n"], line["detectable"], color=look.color, linestyle=look.line, linewidth=1.3)
    axis.set(xscale="log", yscale="log")
    for one, ticks in ((axis.xaxis, SIZE_TICKS), (axis.yaxis, DIFFERENCE_TICKS)):
        one.set_major_locator(FixedLocator(ticks))
        one.set_minor_locator(NullLocator())
        one.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _mark_sizes(axis: Axes, sizes: dict[str, int]) -> None:
    """A line at each size, named above the axis: the smaller to the left, the larger to the right."""
    for (name, size), side in zip(sorted(sizes.items(), key=lambda item: item[1]), ("right", "left"), strict=True):
        axis.axvline(size, color="0.35", linewidth=0.9, linestyle=(0, (4, 2)))
        text = {"textcoords": "offset points", "xycoords": axis.get_xaxis_transform(), "fontsize": 7.5, "va": "bottom"}
        axis.annotate(name, (size, 1), (-2 if side == "right" else 2, 2), ha=side, **text, color="0.35")


def _label_ends(axis: Axes, part: pd.DataFrame, *, panel_in: float) -> None:
    """The experiment's name at the right end of each line, moved apart where lines are close."""
    ends = part[part["n"] == part["n"].max()].sort_values("detectable")
    low, high = np.log(axis.get_ylim())
    heights = (np.log(ends["detectable"].to_numpy()) - low) / (high - low)
    for row, height, place in zip(ends.itertuples(), heights, _spread(heights, LABEL_IN / panel_in), strict=True):
        axis.annotate(
            row.experiment,
            (1, height),
            (1.06, place),
            xycoords=axis.transAxes,
            textcoords=axis.transAxes,
            va="center",
            fontsize=7.5,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 0, "relpos": (0, 0.5)},
            annotation_clip=False,
        )
    axis.set_xlim(part["n"].min(), part["n"].max())


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Rising heights in [0, 1] moved apart to at least `gap`, each as little as possible (least squares)."""
    steps = gap * np.arange(len(heights))
    return np.clip(isotonic_regression(heights - steps).x, 0, max(1 - gap * (len(heights) - 1), 0)) + steps


def _decades(values: pd.Series) -> tuple[float, float]:
    return values.min() / 1.15, values.max() * 1.15


@styled
def subgroups(table: pd.DataFrame) -> Figure:
    """AUC, or its difference from one reference, in subgroups of scans, a panel per experiment. Exploratory.

    Args:
        table: attribute, subgroup, experiment, reference ("" = the AUC itself; one value only), value, low, high,
            interval, n_seeds, n, positives; rows with NaN are counted and left out.
    """
    rows = table.dropna(subset="value")
    experiments, reference = _in_order(rows["experiment"]), rows["reference"].iloc[0]
    groups = rows.drop_duplicates(["attribute", "subgroup"]).groupby("attribute", sort=False)["subgroup"]
    places = [[(attribute, ""), *((attribute, name) for name in names)] for attribute, names in groups]
    positions = _grouped_positions(places, gap=0.4)
    n_rows, n_columns = _grid(len(experiments))
    figure, axes = new_figure(
        width_in=2.2 + 1.7 * n_columns,
        height_in=1.1 + n_rows * (0.5 + 0.18 * (max(positions.values()) + 1)),
        rows=n_rows,
        columns=n_columns,
        share_x=True,
        share_y=True,
    )
    for axis, experiment in zip(axes.flat, experiments, strict=False):
        part = rows[rows["experiment"] == experiment]
        at = [positions[place] for place in zip(part["attribute"], part["subgroup"], strict=True)]
        axis.axvline(0 if reference else 0.5, color="0.35", linewidth=0.9, linestyle="-" if reference else ":")
        _dots_with_intervals(axis, part, "value", at, looks(experiments))
        axis.set_title(experiment)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
    _trim(axes, len(experiments), x_label=f"AUC minus {reference}'s" if reference else "test AUC", y_label="")
    _name_groups(axes, positions, _subgroup_labels(rows))
    add_caption(
        figure,
        f"EXPLORATORY: subgroups were not fixed beforehand, intervals are not adjusted, and of {len(rows)} shown some "
        f"stand apart by chance. Beside each subgroup: scans (positive); *: only these positives, all negatives. "
        f"{_seeds(rows)}; {_names(rows)} interval.",
    )
    return figure


def _subgroup_labels(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Words for every row: attributes as readers write them; subgroups with their scans."""
    first = rows.drop_duplicates(["attribute", "subgroup"])
    heads = {(name, ""): attribute_label(name) for name in first["attribute"]}
    names = first["subgroup"].str.replace(AGAINST_ALL, " *", regex=False)
    counts = [
        f"{name}  {n} ({positives})" for name, n, positives in zip(names, first["n"], first["positives"], strict=True)
    ]
    return heads | dict(zip(zip(first["attribute"], first["subgroup"], strict=True), counts, strict=True))


@styled
def coverage(table: pd.DataFrame) -> Figure:
    """How often each interval holds the true value in simulations, by setting.

    Args:
        table: interval, setting, nominal, coverage, low, high, n_simulations.
    """
    groups = [part for _, part in table.groupby("interval", sort=False)]
    n_rows = np.cumsum([len(part) + 1 for part in groups])
    n_columns = 1 + int(n_rows[-1] > COVERAGE_ROWS)
    columns = [[] for _ in range(n_columns)]
    for part, last in zip(groups, n_rows, strict=True):
        columns[(last - len(part)) * n_columns // (n_rows[-1] + 1)].append(part)
    n_longest = max(sum(len(part) + 1.4 for part in column) for column in columns)
    figure, axes = new_figure(
        width_in=1 + 6 * n_columns, height_in=1.3 + 0.2 * n_longest, columns=n_columns, share_x=True
    )
    for axis, column in zip(axes[0], columns, strict=True):
        _draw_coverage(axis, pd.concat(column))
    low, high = table["n_simulations"].min(), table["n_simulations"].max()
    add_caption(
        figure,
        f"{low if low == high else f'{low} to {high}'} simulations per row; lines: 95 % Wilson interval of the share. "
        f"Asked for: {_percent(table['nominal'].iloc[0])}. Grey band: {' to '.join(map(_percent, COVERAGE_BAND))}; red "
        "crosses lie outside with their whole interval.",
    )
    return figure


def _draw_coverage(axis: Axes, table: pd.DataFrame) -> None:
    groups = table.groupby("interval", sort=False)["setting"]
    places = [[(interval, ""), *((interval, name) for name in settings)] for interval, settings in groups]
    positions = _grouped_positions(places, gap=0.4)
    axis.axvspan(*COVERAGE_BAND, color="0.93", linewidth=0)
    axis.axvline(table["nominal"].iloc[0], color="0.35", linewidth=0.9)
    for row in table.itertuples():
        position = positions[row.interval, row.setting]
        is_inside = row.high >= COVERAGE_BAND[0] and row.low <= COVERAGE_BAND[1]
        color = SPLIT_COLORS[0] if is_inside else COLORS["ITW2"]
        axis.plot([row.low, row.high], [position] * 2, color=color, solid_capstyle="butt")
        axis.plot(row.coverage, position, "o" if is_inside else "X", color=color, markeredgecolor="white")
        _write_right(axis, position, _percent(row.coverage, decimals=1), offset_pt=8, side="left", color="black")
    _name_groups(np.array([[axis]]), positions, {})
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axis.set_xlabel("simulations whose interval holds the true value")


@styled
def prevalence(shares: pd.DataFrame) -> Figure:
    """Share of positive scans of every diagnosis, a bar per split with its interval.

    Args:
        shares: split, task, n, positives, unknown, share, low, high.
    """
    tasks, splits = shares["task"].unique(), shares["split"].unique()
    figure, axes = new_figure(width_in=7.5, height_in=2.9)
    for index, split in enumerate(splits):
        rows = shares[shares["split"] == split]
        x = np.arange(len(tasks)) + (index - (len(splits) - 1) / 2) * 0.27
        axes[0, 0].bar(x, rows["share"], width=0.25, color=SPLIT_COLORS[index % len(SPLIT_COLORS)], label=split)
        errors = np.abs(rows[["low", "high"]].to_numpy().T - rows["share"].to_numpy())
        axes[0, 0].errorbar(x, rows["share"], errors, fmt="none", ecolor="0.2", elinewidth=1)
    axes[0, 0].set_xticks(range(len(tasks)), [_sentence(task) for task in tasks])
    axes[0, 0].set(ylabel="share of positive scans", ylim=(0, 1))
    axes[0, 0].grid(axis="x", visible=False)
    axes[0, 0].legend(ncols=len(splits), loc="upper right")
    n_scans = (shares["n"] + shares["unknown"]).groupby(shares["split"]).max()
    caption = ", ".join(f"{n_scans[split]} {split}" for split in splits)
    add_caption(figure, f"Scans: {caption}; scans without an answer are left out. Lines: 95 % Wilson interval.")
    return figure


@styled
def cooccurrence(shares: pd.DataFrame, *, caption: str) -> Figure:
    """Of the scans with the row's diagnosis, the share that also has the column's.

    Args:
        shares: Tasks by tasks, in [0, 1].
        caption: How many scans of which cohort.
    """
    names = [_sentence(task) for task in shares]
    figure, axes = new_figure(width_in=5.2, height_in=3.6)
    axis = axes[0, 0]
    image = axis.imshow(shares.to_numpy(), cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares.to_numpy()):
        axis.text(column, row, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.6 else "0.15")
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="also has", ylabel="of the scans with")
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="share of scans", shrink=0.9)
    add_caption(figure, caption)
    return figure


@styled
def histograms(scans: pd.DataFrame, *, labels: dict[str, str], reference: dict[str, float], caption: str) -> Figure:
    """One histogram per quantity, with a line for a reference scan.

    Args:
        scans: One row per scan; NaN is left out.
        labels: Column to axis label, quantity and unit.
        reference: Column to the value of the reference scan; a column that is not there has no line.
        caption: How many scans of which cohort, and what the line is.
    """
    figure, axes = new_figure(width_in=2.6 * len(labels), height_in=2.6, columns=len(labels), share_y=True)
    for axis, (column, label) in zip(axes[0], labels.items(), strict=True):
        axis.hist(scans[column].dropna(), bins=12, color=SPLIT_COLORS[0], edgecolor="white")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        if column in reference:
            axis.axvline(reference[column], color=COLORS["ITW2"], linestyle=(0, (4, 2)))
        axis.set_xlabel(label)
    axes[0, 0].set_ylabel("scans")
    add_caption(figure, caption)
    return figure


class ScanView(NamedTuple):
    """A scan and where to cut it."""

    title: str
    array: np.ndarray  # (Z, Y, X), HU or a prepared tensor
    spacing_mm: tuple[float, float, float]  # (z, y, x)
    lungs: np.ndarray  # bool (Z, Y, X), outlined; all False = no outline
    center: tuple[int, int, int]  # voxel (z, y, x) through which the slices go


@styled
def scan_slices(views: Sequence[ScanView], *, window: Sequence[float], caption: str) -> Figure:
    """Coronal slices above, axial slices below, one column per scan, all to one scale in mm and one grey window.

    Args:
        views: One column each.
        window: Values drawn black and white.
        caption: How many scans of which cohort; what is drawn is added.
    """
    z_mm, y_mm, x_mm = np.max([np.multiply(view.array.shape, view.spacing_mm) for view in views], axis=0)
    height_in = 0.8 + 1.75 * (z_mm + y_mm) / x_mm
    figure, axes = new_figure(width_in=1.75 * len(views), height_in=height_in, rows=2, columns=len(views))
    for column, view in zip(axes.T, views, strict=True):
        column[0].set_title(view.title, loc="center", fontsize=8.5)
        for axis, across in zip(column, (1, 0), strict=True):
            _draw_plane(axis, view, across, window)
    for row, name in zip(axes, ("coronal", "axial"), strict=True):
        row[0].set_ylabel(name)
        _same_scale(row)
    outline = " Outline: lung mask." if any(view.lungs.any() for view in views) else ""
    grey = f"Grey from {window[0]:g} to {window[1]:g}, one scale."
    add_caption(figure, f"{caption} {grey}{outline} The patient's left is on the right.")
    return figure


def _draw_plane(axis: Axes, view: ScanView, across: int, window: Sequence[float]) -> None:
    """Draw the slice across one axis through `view.center`, its axes in mm."""
    rows, columns = [a for a in range(3) if a != across]
    array, lungs = (volume.take(view.center[across], axis=across) for volume in (view.array, view.lungs))
    height_mm, width_mm = (array.shape[0] * view.spacing_mm[rows], array.shape[1] * view.spacing_mm[columns])
    extent = (-width_mm / 2, width_mm / 2, -height_mm / 2, height_mm / 2)
    axis.imshow(
        array.astype(np.float32),
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        extent=extent,
        origin="lower",
        interpolation="nearest",
    )
    if lungs.any():
        axis.contour(lungs, levels=[0.5], colors=PEAK_COLOR, linewidths=0.7, extent=extent, origin="lower")
    axis.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:] if across else (extent[3], extent[2]))
    axis.grid(False)
    axis.spines[:].set_visible(False)


def _same_scale(axes: Sequence[Axes]) -> None:
    """Give all axes the limits of the widest and highest, so that a mm has one length."""
    half_x = max(abs(axis.get_xlim()[0]) for axis in axes)
    half_y = max(abs(axis.get_ylim()[0]) for axis in axes)
    for axis in axes:
        upwards = axis.get_ylim()[0] < 0
        axis.set(xlim=(-half_x, half_x), ylim=(-half_y, half_y) if upwards else (half_y, -half_y), facecolor="black")


def _dots_with_intervals(
    axis: Axes, rows: pd.DataFrame, value: str, positions: Sequence[float], style: dict[str, Look]
) -> None:
    """A marker and an interval per row, in the experiment's look; with low_90 and high_90 a thick one on a thin one."""
    is_double = "low_90" in rows
    for position, row in zip(positions, rows.to_dict("records"), strict=True):
        look = style[row["experiment"]]
        line = {"color": look.color, "solid_capstyle": "butt"}
        axis.plot([row["low"], row["high"]], [position] * 2, **line, linewidth=1.0 if is_double else 1.6)
        if is_double:
            axis.plot([row["low_90"], row["high_90"]], [position] * 2, **line, linewidth=2.8)
        _dot(axis, row[value], position, look, size=7 if is_double else 5)


def _dot(axis: Axes, x: float, y: float, look: Look, *, size: float = 5) -> None:
    face, edge, width = (look.color, "white", 0.6) if look.is_filled else ("white", look.color, 1.1)
    axis.plot(x, y, look.marker, color=face, markeredgecolor=edge, markeredgewidth=width, markersize=size)


def _in_order(experiments: Iterable[str]) -> list[str]:
    """Different experiments: those with a fixed colour first, in Table 2's order, each followed by its variants."""
    names = list(dict.fromkeys(experiments))
    bases = [*COLORS, *map(base_of, names)]
    return sorted(names, key=lambda name: (bases.index(base_of(name)), name != base_of(name)))


def _variant_groups(experiments: Iterable[str]) -> list[list[str]]:
    """Every base with its variants, the base first; a base without variants is left out."""
    names = _in_order(experiments)
    bases = dict.fromkeys(base_of(name) for name in names if name != base_of(name))
    return [[name for name in names if base_of(name) == base] for base in bases]


def _grouped_positions(groups: Sequence[Sequence[Hashable]], *, gap: float) -> dict[Hashable, float]:
    """Height of every row, one apart, with a gap between groups."""
    places = [(name, i) for i, group in enumerate(groups) for name in group]
    return {name: row + gap * i for row, (name, i) in enumerate(places)}


def _name_groups(axes: np.ndarray, positions: dict[tuple[str, str], float], labels: dict) -> None:
    """Write group names, the places with an empty second part, bold and the others below them."""
    words = [labels.get(place, place[1]) or place[0] for place in positions]
    for axis in axes.flat:
        axis.grid(visible=False, axis="y")
    for axis in axes[:, 0]:
        axis.set_yticks(list(positions.values()), words)
        axis.set_ylim(max(positions.values()) + 0.6, -0.6)
        for place, label in zip(positions, axis.get_yticklabels(), strict=True):
            label.set_fontweight("normal" if place[1] else "bold")


def _name_rows(axis: Axes, experiments: list[str]) -> None:
    axis.set_yticks(range(len(experiments)), experiments)
    axis.set_ylim(len(experiments) - 0.4, -0.6)


def _roc_line(axis: Axes, sensitivity: pd.Series, *, color: str, linewidth: float, alpha: float = 1) -> None:
    """A curve from (0, 0), where the stored one starts at the upper end of its first rise."""
    axis.plot([0, *sensitivity.index], [0, *sensitivity], color=color, linewidth=linewidth, alpha=alpha)


def _grid(n_panels: int) -> tuple[int, int]:
    """Rows and columns of at most five columns, as even as possible."""
    n_rows = -(-n_panels // 5)
    return n_rows, -(-n_panels // n_rows)


def _trim(axes: np.ndarray, n_panels: int, *, x_label: str, y_label: str) -> None:
    """Hide empty panels and label the outer axes only."""
    for axis in axes.flat[n_panels:]:
        axis.set_visible(False)
    for column, axis in enumerate(axes[-1]):
        lowest = axis if axis.get_visible() else axes[-2, column]
        lowest.set_xlabel(x_label)
        lowest.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel(y_label)


def _write_beside(axis: Axes, position: float, texts: Sequence[str], *, color: str) -> None:
    """Columns of text (`BESIDE`) to the right of an axis, at a row's height."""
    for text, (offset_pt, side) in zip(texts, BESIDE, strict=False):
        _write_right(axis, position, text, offset_pt=offset_pt, side=side, color=color)


def _write_right(axis: Axes, position: float, text: str, *, offset_pt: float, side: str, color: str) -> None:
    axis.annotate(
        text,
        (1, position),
        (offset_pt, 0),
        xycoords=axis.get_yaxis_transform(),
        textcoords="offset points",
        ha=side,
        va="center",
        color=color,
        annotation_clip=False,
    )


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", MINUS)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _percent(share: float, *, decimals: int = 0) -> str:
    return f"{100 * share:.{decimals}f} %"


def _draw_band(axis: Axes, margin: float) -> None:
    """The band of differences too small to matter, and no difference."""
    axis.axvspan(-margin, margin, color="0.93", linewidth=0)
    axis.axvline(0, color="0.35", linewidth=0.9)


def _sentence(task: str) -> str:
    """A task's name at the start of a sentence: COPD stays COPD."""
    return task_label(task)[0].upper() + task_label(task)[1:]


def _seeds(frame: pd.DataFrame) -> str:
    low, high = int(frame["n_seeds"].min()), int(frame["n_seeds"].max())
    return f"{low} to {high} seeds" if low != high else f"{low} seed{'s' if low > 1 else ''}"


def _names(frame: pd.DataFrame) -> str:
    return " or ".join(sorted(set(frame["interval"])))
