"""Style of all figures: colours, markers, fonts, empty figures.

An experiment has one colour, marker and line style in every figure (`looks`). A variant, named BASE.change
(ITW2.start0.5), and an arm, named BASE-arm (ITW2-full), stand next to their base, in its colour, with an open marker;
where those of a base share a panel, each has a colour of its own (`line_colors`). Every colour has a contrast of 3 : 1
or more with white.

Sources: Okabe & Ito 2008 (colour-blind safe hues), https://jfly.uni-koeln.de/color; WCAG 2.2, 1.4.11 (contrast).
"""

import io
from collections.abc import Iterable
from typing import NamedTuple

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

from lungmtl.experiments import TABLE2, in_order, root_of

STYLE = (
    sns.axes_style("ticks")
    | sns.plotting_context("paper", font_scale=0.9)
    | {
        "figure.dpi": 110,
        "font.family": "DejaVu Sans",  # ships with matplotlib, so a figure is the same on every machine
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.edgecolor": "0.35",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "0.9",
        "legend.facecolor": "white",  # so that a curve below does not strike its names out
        "legend.edgecolor": "none",
        "legend.framealpha": 0.85,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "lines.solid_capstyle": "butt",  # an interval ends where its line does
        "xtick.major.size": 3,
        "ytick.major.size": 3,
    }
)
styled = matplotlib.rc_context(STYLE)  # used as a decorator: the style holds inside the function only
BLUES = ("#2494D9", "#0463DD", "#0D35D2", "#0D3C84", "#072949")  # MTL0 to MTL4: darker = heavier auxiliaries
REDS = ("#F05D41", "#B6240A", "#851C0D")  # ITW1 to ITW3
COLORS = dict(zip(TABLE2, ("#000000", "#BC8900", *BLUES, *REDS), strict=True))  # one family, one hue
FAMILIES = dict(zip(TABLE2, ["STL", "BW", *5 * ["PFLP"], *3 * ["ITW"]], strict=True))
FAMILY_TITLES = {  # of panels; two families share one
    **dict.fromkeys(("STL", "BW"), "neither PFLP nor ITW"),
    "PFLP": "Periodic Focusing (PFLP)",
    "ITW": "Internal-Transfer Weighting (ITW)",
}
FAMILY_MARKERS = {"STL": "D", "BW": "s", "PFLP": "o", "ITW": "^", "other": "X"}
FAMILY_DASHES = {"STL": (5, 1.5), "BW": (1.2, 1.2), "PFLP": "", "ITW": "", "other": (4, 1, 1, 1)}
VARIANT_MARKERS = ("o", "s", "^", "D", "v", "p", "<", "h", ">", "P", "*", "d")  # open, in order of name
VARIANT_DASHES = ((5, 1), (2, 1), (7, 1, 2, 1), (3, 1, 1, 1, 1, 1), (1, 1))
OTHER_COLORS = ("#009E73", "#CC79A7", "#7F7F7F", "#5B3E96", "#7A8500")  # experiments outside Table 2, in order
VARIANT_COLORS = (  # of variants that share a panel with their base, whose own colour is left out
    *("#2494D9", "#BC8900", "#009E73", "#CC79A7", "#5B3E96", "#7F7F7F", "#B6240A", "#7A8500", "#0D3C84"),
    *("#E0218A", "#8C564B"),
)
SPLIT_COLORS = (BLUES[2], COLORS["MTL"], "#7F7F7F")  # train, validation, test
BLUE, RED = BLUES[2], REDS[1]  # of figures that are not about experiments


class Look(NamedTuple):
    """How one experiment is drawn, in every figure."""

    color: str
    marker: str
    dashes: str | tuple  # lengths in line widths, as seaborn takes them; "" = solid
    is_filled: bool = True


class NotebookFigure(Figure):
    """A Figure outside pyplot that a notebook shows by itself. Its layout is computed once."""

    alt = ""  # alternative text: what it shows

    def draw(self, renderer: RendererBase) -> None:
        """Draw, and keep the layout that was computed."""
        super().draw(renderer)
        self.set_layout_engine(None)  # the default engine, which is none

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue(), {"alt": self.alt}


def looks(experiments: Iterable[str]) -> dict[str, Look]:
    """Colour, marker and line style of every experiment in order; Table 2 experiments always have the same one.

    A variant or arm has its base's colour, and a marker by its place among those of this base.
    """
    names = in_order(experiments)
    others = [base for base in dict.fromkeys(map(root_of, names)) if base not in COLORS]
    colors = COLORS | {base: OTHER_COLORS[i % len(OTHER_COLORS)] for i, base in enumerate(others)}
    return {name: _look(name, names, colors[root_of(name)]) for name in names}


def dashes_of(look: Look) -> tuple:
    """Line style of a look as matplotlib takes it: lengths in line widths, none = solid."""
    return look.dashes or (None, None)


def line_colors(experiments: Iterable[str]) -> dict[str, str]:
    """Colour of every experiment that shares a panel with the others: a variant's own, to tell the lines apart."""
    bases = {name: look.color for name, look in looks(experiments).items() if name == root_of(name)}
    free = [color for color in VARIANT_COLORS if color not in bases.values()]
    variants = [name for name in in_order(experiments) if name not in bases]
    colors = bases | {name: free[i % len(free)] for i, name in enumerate(variants)}
    return {name: colors[name] for name in in_order(experiments)}


def groups_of(experiments: Iterable[str]) -> dict[str, list[str]]:
    """Experiments that share a panel, by the panel's title: a base with its variants, else a family of Table 2.

    Those that are neither share panels as evenly as possible, as many in each as there are colours.
    """
    names = in_order(experiments)
    with_variants = {root_of(name) for name in names if name != root_of(name)}
    groups: dict[str, list[str]] = {}
    others = [name for name in names if name not in COLORS and root_of(name) not in with_variants]
    for name in names:
        base = root_of(name)
        if name not in others:
            groups.setdefault(base if base in with_variants else FAMILY_TITLES[FAMILIES[name]], []).append(name)
    n_panels = -(-len(others) // len(OTHER_COLORS))
    for part in np.array_split(others, n_panels) if others else []:
        groups[f"{part[0]} to {part[-1]}"] = part.tolist()
    return {title if len(members) > 1 else members[0]: members for title, members in groups.items()}


def _look(name: str, names: list[str], color: str) -> Look:
    base = root_of(name)
    if name == base:
        family = FAMILIES.get(name, "other")
        return Look(color, FAMILY_MARKERS[family], FAMILY_DASHES[family])
    place = sorted(other for other in names if root_of(other) == base != other).index(name)
    marker, dashes = (values[place % len(values)] for values in (VARIANT_MARKERS, VARIANT_DASHES))
    return Look(color, marker, dashes, is_filled=False)


def new_figure(
    *, width_in: float, height_in: float, rows: int = 1, columns: int = 1, share: str = ""
) -> tuple[Figure, np.ndarray]:
    """An empty figure outside pyplot (notebooks show it once); its axes (rows, columns) share "", "x", "y" or "xy"."""
    figure = NotebookFigure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.subplots(rows, columns, sharex="x" in share, sharey="y" in share, squeeze=False)
