"""Early signs of what sharing will bring: gradient cosines, affinity and validation AUC in the first steps.

Sources: affinity after Fifty et al. 2021, arXiv 2109.04617, section 3: how much a step along the gradient of one task
lowers the loss of another; here a plain step of `AHEAD`, whatever the training's own optimiser.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from lungmtl.when.students import losses_of, read
from lungmtl.when.world import Scans

SIGNS = ("cosine", "affinity", "validation")
EVERY = 10  # chosen by us: steps between two looks
AHEAD = 0.003  # the step size that sgd begins with here
SINGLE = "STL"  # what an experiment is compared with
N_BOOTSTRAPS = 1000  # of the bootstrap over worlds
EARLY_COLUMNS = ("experiment", "reference", "sign", "over", "n_steps", "n", "correlation", "low", "high", "same_sign")


class Early:
    """Watches the students of all policies for a share of their steps; changes nothing about their training."""

    def __init__(self, share: float, scans: Sequence[dict[str, Scans]]) -> None:
        if not 0 < share < 1:
            raise ValueError(f"`early` must be a share of the steps, above 0 and below 1. Found {share}.")
        self.share, self.scans = share, scans
        self.seen: list[Tensor] = []

    def __call__(self, stack, step: int, *batch: Tensor) -> None:
        """A look at the students before this step; `batch` as `_Stack.learn` is given it."""
        last = int(self.share * stack.budget.n_steps)
        if step == last:
            self.validation = stack.aucs(self.scans, "validation")
        elif step < last and step % EVERY == 0:
            self.seen.append(look(stack.parameters, *batch))

    @property
    def signs(self) -> dict[str, Tensor]:
        """Of every student, (K, S): mean `cosine` and `affinity` over looks and auxiliary tasks, `validation` AUC."""
        return dict(zip(SIGNS, (*torch.stack(self.seen).mean(dim=0), self.validation), strict=True))


def look(parameters: Sequence[Tensor], features: Tensor, *batch: Tensor) -> Tensor:
    """Cosine and affinity of the central task with each other task at the shared layer, mean over these, (2, K, S)."""
    weight, bias, *heads = (parameter.detach().double().requires_grad_() for parameter in parameters)
    features, *batch = (part.double() for part in (features, *batch))

    def losses(*shared: Tensor) -> Tensor:
        """Of every task, (K, S, T)."""
        return losses_of(read((*shared, *heads), features), *batch)

    now = losses(weight, bias)
    gradients = [torch.autograd.grad(now[..., t].sum(), (weight, bias), retain_graph=True) for t in range(now.shape[2])]
    flat = torch.stack([torch.cat([part.flatten(2) for part in both], dim=2) for both in gradients])  # (T, K, S, P)
    cosines = functional.cosine_similarity(flat[:1], flat[1:], dim=3)  # (T - 1, K, S)
    with torch.no_grad():
        ahead = [losses(weight - AHEAD * down, bias - AHEAD * side)[..., 0] for down, side in gradients[1:]]
        affinities = 1 - torch.stack(ahead) / now[..., 0].clamp(min=1e-12)
    return torch.stack([cosines.mean(dim=0), affinities.mean(dim=0)])


def predictor_table(results: pd.DataFrame) -> pd.DataFrame:
    """How well early signs predict the final difference of test AUC from the single task.

    The sign *validation* is the early difference of validation AUC; *cosine* and *affinity* are those of the students
    of the experiment itself.

    Args:
        results: Rows of `run_cell` of cells that were watched, all with the same seeds.
    Returns:
        `EARLY_COLUMNS`: the rank correlation over cells (means over their worlds) or over the worlds of a cell (mean
        over the cells), of cells with n_steps steps (0: of all), with a 95 % interval of the bootstrap over worlds; n
        cells; same_sign, the share of cells or worlds where sign and difference are both above or both below 0.
    """
    at, rows = ["n_steps", "relatedness", "n_scans"], []
    values = ["auc_test", *(f"early_{sign}" for sign in SIGNS)]
    wide = results.pivot_table(index=at, columns=["experiment", "seed"], values=values)  # (cells, S) of each
    steps, names = wide.index.get_level_values("n_steps"), [n for n in results["experiment"].unique() if n != SINGLE]
    for name, sign in product(names, SIGNS):
        final = (wide["auc_test", name] - wide["auc_test", SINGLE]).to_numpy()
        early = wide[f"early_{sign}", name] - (wide[f"early_{sign}", SINGLE] if sign == "validation" else 0.0)
        for over, n_steps in product(("cells", "worlds"), (0, *steps.unique())):
            of = (steps == n_steps) | (n_steps == 0)
            if over == "cells" and of.sum() < 3:
                continue
            found = _correlated(early.to_numpy()[of], final[of], over)
            rows.append((name, SINGLE, sign, over, n_steps, int(of.sum()), *found))
    return pd.DataFrame(rows, columns=list(EARLY_COLUMNS))


def _correlated(early: np.ndarray, final: np.ndarray, over: str) -> tuple[float, ...]:
    """Rank correlation of two tables (cells, S), the ends of its interval, and the share of equal signs."""
    n = early.shape[1]
    drawn = np.random.default_rng(0).integers(n, size=(N_BOOTSTRAPS, n))
    a, b = (table[:, np.vstack([np.arange(n), drawn])] for table in (early, final))  # (cells, 1 + R, S)
    a, b = (a.mean(axis=2), b.mean(axis=2)) if over == "cells" else (a, b)
    same = np.mean(np.sign(a[:, 0]) == np.sign(b[:, 0]))
    axis = 0 if over == "cells" else 2
    a, b = (rankdata(values, axis=axis) for values in (a, b))
    a, b = (values - values.mean(axis=axis, keepdims=True) for values in (a, b))
    with np.errstate(invalid="ignore"):  # a draw of one world alone has no correlation within a cell
        found = (a * b).sum(axis=axis) / np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))
    found = found if over == "cells" else np.nanmean(found[:, ~np.isnan(found).all(axis=0)], axis=0)
    return float(found[0]), *np.nanquantile(found[1:], (0.025, 0.975)), float(same)
