"""Figure of the scans that runs call wrongly most often."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lungmtl.experiments import in_order
from lungmtl.figures.style import new_figure, styled
from lungmtl.figures.words import captioned, sentence
from lungmtl.words import seeds_of

N_SCANS = 15  # scans per panel


@styled
def missed_scans(missed: pd.DataFrame, *, task: str) -> Figure:
    """Scans that are most often called wrongly, positive ones on the left, negative ones on the right.

    Args:
        missed: experiment, scan, target, wrong (share of the seeds), n_seeds; nodule_mm is written next to a scan.
        task: The diagnosis.
    """
    experiments = in_order(missed["experiment"])
    figure, axes = new_figure(width_in=5.2 + 0.5 * len(experiments), height_in=1.3 + 0.22 * N_SCANS, columns=2)
    for axis, (target, title) in zip(axes[0], ((1, "missed"), (0, "false alarms")), strict=True):
        rows = missed[missed["target"] == target]
        wide = rows.pivot_table(index="scan", columns="experiment", values="wrong").reindex(columns=experiments)
        worst = wide.mean(axis=1).rename("wrong").sort_values(ascending=False, kind="stable")
        _draw_shares(axis, wide.loc[worst.index[:N_SCANS]], _names(rows))
        axis.set_title(f"{title}: {(worst > 0).sum()} of {len(worst)}")
    return captioned(
        figure,
        f"{sentence(task)}, test scans. Titles: those that any run here calls wrongly, at the threshold of its own "
        f"validation scans, of all. Shown: at most {N_SCANS}, most often wrong first; number: share of "
        f"{seeds_of(missed)} that are wrong. No interval: these scans were selected for being wrong.",
    )


def _names(rows: pd.DataFrame) -> dict[str, str]:
    """What is written next to a scan: its name, and the size of its nodule where that is known."""
    rows = rows.drop_duplicates("scan").set_index("scan")
    sizes = rows["nodule_mm"].dropna() if "nodule_mm" in rows else pd.Series(dtype=float)
    return {scan: f"{scan}, {sizes[scan]:.0f} mm" if scan in sizes else scan for scan in rows.index}


def _draw_shares(axis: Axes, shares: pd.DataFrame, names: dict[str, str]) -> None:
    options = {"cmap": "Reds", "vmin": 0, "vmax": 1, "cbar": False, "linewidths": 0.5, "annot_kws": {"fontsize": 7}}
    sns.heatmap(shares.rename(index=names), annot=True, fmt=".2g", yticklabels=True, ax=axis, **options)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="x", rotation=90, length=0)
    axis.tick_params(axis="y", rotation=0, length=0)
