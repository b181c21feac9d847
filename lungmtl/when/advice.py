"""Advice: where a cohort lies on the map, and what each kind of policy did there.

Between cells, mean and standard deviation over worlds are interpolated in relatedness, log scans and log steps. A
cohort is one world, so its interval is the t interval for one more world, with n - 1 degrees of freedom.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from scipy.interpolate import RegularGridInterpolator

from lungmtl.experiments import AXES, SMALL_DIFFERENCE
from lungmtl.when.cells import SIDE_AT

COMPARED = (  # what is printed, experiment, reference
    ("balanced sharing (MTL)", "MTL", "STL"),
    ("static weights tuned on validation", "tuned static", "STL"),
    ("Periodic Focusing (MTL2)", "MTL2", "STL"),
    ("  matched: static weights of equal ratio", "MTL2", "MTL.aux1"),
    ("Internal-Transfer Weighting (ITW2)", "ITW2", "STL"),
    ("  matched: Periodic Focusing to the end", "ITW2", "MTL2"),
    ("  matched: tuned static weights", "ITW2", "tuned static"),
    ("  matched: fine-tuning", "ITW2", "ITW1.finetune"),
    ("loss rule (UW)", "UW", "STL"),
    ("gradient rule (GradNorm)", "GradNorm", "STL"),
    ("gradient rule (PCGrad)", "PCGrad", "STL"),
    ("rule for one main task (GCS)", "GCS", "STL"),
    ("rule for one main task (PCD)", "PCD", "STL"),
)
APART = "one_label"  # the arm of labels apart
NEAR = 2.0  # chosen by us: where the map has one value of an axis, it serves up to this factor from that value
SHARE = 0.15  # chosen by us: half of the share of the rarer class on the map; the least that the map serves
ALIKE = 0.9  # chosen by us: the least share of known labels, or of scans with one label, that the map serves
SURE = 0.9  # chosen by us: probability from which a sign is stated
KEPT = 0.05  # chosen by us: probability from which a degree of relatedness is kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """What determines the place of a cohort and its training: training scans, labels and steps.

    Attributes:
        shares: By task the share of its rarer class among known training labels, central task first.
        known: Share of the training labels that is known.
        one_known: Share of the training scans that have exactly one label.
    """

    n_scans: int
    n_steps: int
    shares: dict[str, float]
    known: float
    one_known: float

    @property
    def arm(self) -> str:
        """The map's arm, "" for its grid."""
        return APART if self.one_known >= ALIKE else ""


def beyond(place: Place, contrasts: pd.DataFrame) -> list[str]:
    """Why the map does not reach a cohort, in sentences; none if it does."""
    found, grid = [], contrasts[contrasts["arm"] == place.arm]
    if len(place.shares) < 2:
        return ["The map does not reach a cohort of one task: there is nothing to share."]
    for name, words in (("n_scans", "training scans"), ("n_steps", "optimiser steps")):
        low, high = _ends(grid[name])
        value = getattr(place, name)
        if not low <= value <= high:
            what = " with labels apart" if place.arm else ""
            found.append(f"The map{what} reaches from {low:,.0f} to {high:,.0f} {words}. Found {value:,}.")
    rare = {task: share for task, share in place.shares.items() if share < SHARE}
    if rare:
        said = ", ".join(f"{task} {share:.0%}" for task, share in rare.items())
        must = (
            f"The map serves tasks whose rarer class holds at least {SHARE:.0%} of the labels; its own hold 30 to 38%."
        )
        found.append(f"{must} Found {said}.")
    if not place.arm and place.known < ALIKE:
        found.append(
            "The map serves cohorts with all labels of all scans, or one label per scan. "
            f"Found {place.known:.0%} of the training labels, and a single one in {place.one_known:.0%} of the scans."
        )
    return found


def expected(contrasts: pd.DataFrame, place: Place, relatedness: tuple[float, float]) -> pd.DataFrame:
    """What the map says at this place of every kind of policy that it has there.

    Args:
        contrasts: Rows of `contrast_table`.
        place: One that the map reaches.
        relatedness: Lower and upper end; equal if it is known.
    Returns:
        `kind`, `experiment`, `reference`; over the range of relatedness the least and greatest mean difference,
        `difference_low` and `difference_high`, the outermost ends of the 95 % intervals for one more world, `low` and
        `high`, and the least and greatest probability of a difference above 0, `chance_low` and `chance_high`;
        `reading` in words.
    """
    rows = []
    for kind, experiment, reference in COMPARED:
        is_pair = (contrasts["experiment"] == experiment) & (contrasts["reference"] == reference)
        part = contrasts[is_pair & (contrasts["arm"] == place.arm)]
        ends = {name: _ends(part[name]) for name in SIDE_AT}
        if len(part) and all(low <= getattr(place, name) <= high for name, (low, high) in ends.items()):
            row = {"kind": kind, "experiment": experiment, "reference": reference}
            rows.append(row | _over(part, place, relatedness))
    return pd.DataFrame(rows)


def relatedness_of(ratio: float, phantoms: pd.DataFrame) -> pd.Series:
    """Probability of each degree of relatedness of the phantoms, given a pilot's ratio and a uniform prior.

    Args:
        ratio: Agreement of gradients, divided by that with shuffled labels.
        phantoms: Worlds as `benchmarks/pilot.py` writes them: `relatedness`, `agreement`, `shuffled`; the logarithm of
            the ratio is taken as normal at every degree.
    """
    logs = np.log(phantoms["agreement"] / phantoms["shuffled"]).groupby(phantoms["relatedness"])
    density = np.exp(-(((np.log(ratio) - logs.mean()) / logs.std()) ** 2) / 2) / logs.std()
    return density / density.sum()


def _ends(values: pd.Series) -> tuple[float, float]:
    """Between which values of an axis the map serves."""
    low, high = values.min(), values.max()
    return (low, high) if low < high else (low / NEAR, high * NEAR)


def _over(part: pd.DataFrame, place: Place, relatedness: tuple[float, float]) -> dict[str, float | str]:
    n = part["n_seeds"].iloc[0]
    t = stats.t(n - 1)
    inside = part["relatedness"][part["relatedness"].between(*relatedness)]
    points = np.unique([*relatedness, *inside])
    mean = _between(part, "difference", place, points)
    deviation = _between(part.assign(half=part["high"] - part["difference"]), "half", place, points)
    deviation *= np.sqrt(n + 1) / t.ppf(0.975)  # of one more world, from the half-width of a mean of n
    chance = t.cdf(mean / deviation)
    low, high = (mean - t.ppf(0.975) * deviation).min(), (mean + t.ppf(0.975) * deviation).max()
    found = {"difference_low": mean.min(), "difference_high": mean.max(), "low": low, "high": high}
    found |= {"chance_low": chance.min(), "chance_high": chance.max()}
    return found | {"reading": _reading(**found)}


def _between(part: pd.DataFrame, value: str, place: Place, points: Sequence[float]) -> np.ndarray:
    """A column at these degrees of relatedness and the place's scans and steps; an axis with one value is ignored."""
    table = part.set_index(list(AXES))[value].sort_index()
    axes = [table.index.levels[k].to_numpy(dtype=float) for k in range(len(AXES))]
    grid = table.to_numpy().reshape([len(axis) for axis in axes])
    used = [k for k, axis in enumerate(axes) if len(axis) > 1]
    at = np.stack([points, np.full(len(points), place.n_scans), np.full(len(points), place.n_steps)], axis=1)
    scale = [np.asarray, np.log, np.log]
    coordinates = [scale[k](axes[k]) for k in used]
    wanted = np.stack([scale[k](at[:, k]).clip(c[0], c[-1]) for k, c in zip(used, coordinates, strict=True)], axis=1)
    return RegularGridInterpolator(coordinates, grid.squeeze())(wanted)


def _reading(*, low: float, high: float, chance_low: float, chance_high: float, **_: float) -> str:
    if low >= -SMALL_DIFFERENCE and high <= SMALL_DIFFERENCE:
        return f"within {SMALL_DIFFERENCE}"
    return "better" if chance_low >= SURE else "worse" if chance_high <= 1 - SURE else "open"
