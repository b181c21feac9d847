"""Gradient rules of TorchJD: its weightings, given the Gramian; they need torch, TorchJD 0.18 and what each one says.

Their state and their draws are kept here, per task, since TorchJD starts anew where the number of tasks in a batch
changes, and draws from torch's global generator. GradVac and PCD hand their state over in attributes that TorchJD keeps
private, one more reason to pin it. Both packages are imported when a rule first weighs.

Source: TorchJD 0.18.0, MIT licence; every class names its paper.
"""

import dataclasses
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from lungmtl.policies.contract import require
from lungmtl.policies.rules import GradientRule, Seen, drawn


@dataclasses.dataclass(frozen=True)
class Borrowed(GradientRule):
    """Base of these rules: TorchJD's weighting of the same name, or what a subclass makes of it in `solve`."""

    def solve(self, rules: ModuleType, gramian: Any, seen: Seen) -> Any:
        """Weights, a tensor (K,), of a Gramian, float64 (K, K); `rules` is torchjd.aggregation."""
        return getattr(rules, f"{type(self).__name__}Weighting")()(gramian)

    def weigh(self, seen: Seen) -> Sequence[float]:
        """Weights of TorchJD.

        Raises:
            ImportError: If TorchJD, or the solver that the rule needs, is not installed.
        """
        import torch

        try:
            from torchjd import aggregation

            with torch.random.fork_rng(devices=[]):  # the draws of a rule are no part of the training's own
                torch.default_generator.manual_seed(drawn(getattr(self, "seed", 0), seen.step).getrandbits(63))
                return self.solve(aggregation, torch.tensor(seen.gramian, dtype=torch.float64), seen).tolist()
        except ImportError as error:
            wanted = "TorchJD 0.18 (`pip install lungmtl[policies]`) and its own solver"
            raise ImportError(f"{type(self).__name__} must have {wanted}. Found: {error}.") from error


@dataclasses.dataclass(frozen=True)
class MGDA(Borrowed):
    """Multiple-gradient descent: the shortest convex combination of the gradients, which no task opposes.

    Source: Sener and Koltun 2018, algorithm 2, arXiv 1810.04650.
    """


@dataclasses.dataclass(frozen=True)
class PCGrad(Borrowed):
    """Gradient surgery: from each gradient what opposes another one is projected out, in a random order.

    Args:
        seed: Of the order.
    Source: Yu et al. 2020, algorithm 1, arXiv 2001.06782.
    """

    _: dataclasses.KW_ONLY
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class IMTLG(Borrowed):
    """Impartial multi-task learning, gradient balance: a step with equal projections onto all gradients' directions.

    Source: Liu et al. 2021, section 3.1, openreview IMPnRXEWpvr; generalised in arXiv 2406.16232.
    """


@dataclasses.dataclass(frozen=True)
class AlignedMTL(Borrowed):
    """Independent component alignment: gradients made orthogonal and as long as the shortest component.

    Source: Senushkin et al. 2023, algorithm 1, arXiv 2305.19000.
    """


@dataclasses.dataclass(frozen=True)
class ConFIG(Borrowed):
    """Conflict-free inverse gradients: a step with equal cosines to all gradients, as long as their projections' sum.

    Source: Liu et al. 2024, equation 2, arXiv 2408.11104.
    """

    def solve(self, rules: ModuleType, gramian: Any, seen: Seen) -> Any:
        """Weights of TorchJD's step, which takes gradients: any with this Gramian, here of K numbers each."""
        import torch

        values, vectors = torch.linalg.eigh(gramian)
        gradients = vectors * values.clamp(min=0).sqrt()  # (K, K)
        return gradients.T.pinverse() @ rules.ConFIG()(gradients)


@dataclasses.dataclass(frozen=True)
class GradVac(Borrowed):
    """Gradient vaccine: raises cosines between gradients that lie below what they have been so far.

    Args:
        beta: Share of the new cosine in the moving average.
        seed: Of the order in which pairs are met.
    Source: Wang et al. 2021, algorithm 1, arXiv 2010.05874.
    """

    _: dataclasses.KW_ONLY
    beta: float = 0.5
    seed: int = 0

    def start(self) -> dict[str, Any]:
        """Averages of 0 for all pairs."""
        return {"cosines": [[0.0] * len(self.tasks) for _ in self.tasks]}

    def solve(self, rules: ModuleType, gramian: Any, seen: Seen) -> Any:
        """Weights of the sum of the vaccinated gradients; the averages move for pairs in the batch alone."""
        gramian = gramian / gramian.diagonal().mean()  # TorchJD adds 1e-8 to norms, which short gradients would feel
        weighting = rules.GradVacWeighting(beta=self.beta)
        weighting._ensure_state(len(seen.rows), gramian.dtype)
        kept = self.state["cosines"]
        weighting._phi_t.copy_(gramian.new_tensor([[kept[i][j] for j in seen.rows] for i in seen.rows]))
        weights = weighting(gramian)
        for i, averages in zip(seen.rows, weighting._phi_t.tolist(), strict=True):
            for j, average in zip(seen.rows, averages, strict=True):
                kept[i][j] = average
        return weights


@dataclasses.dataclass(frozen=True)
class PCD(Borrowed):
    """Priority-constrained descent: the central gradient, bent as little as lets every other task gain a little.

    In a batch without a label of the central task all weights are 0: the step is as long as the central gradient.

    Args:
        tau: Share of its own normalised step that every other task must gain, inside [0, 1].
        beta: Decay of the moving average of the squared norms, inside [0, 1).
    Source: Priority-Constrained Descent, TMLR 2026, arXiv 2606.29521.
    """

    _: dataclasses.KW_ONLY
    tau: float = 0.02
    beta: float = 0.999

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.tau <= 1, "`tau` must be inside [0, 1]", self.tau)
        require(0 <= self.beta < 1, "`beta` must be inside [0, 1)", self.beta)

    def start(self) -> dict[str, Any]:
        """Mean squared norm of each task's gradient, and in how many steps."""
        return {"square": [0.0] * len(self.tasks), "count": [0] * len(self.tasks)}

    def solve(self, rules: ModuleType, gramian: Any, seen: Seen) -> Any:
        """Weights with the central one first; TorchJD is given the average of each task, whatever its count."""
        state, late = self.state, 10**9  # a count by which TorchJD corrects the averages no more: that is done here
        for row, square in zip(seen.rows, gramian.diagonal().tolist(), strict=True):
            state["count"][row] += 1
            share = (1 - self.beta) / (1 - self.beta ** state["count"][row])
            state["square"][row] += share * (square - state["square"][row])
        if seen.rows[0] != 0:
            return gramian.new_zeros(len(seen.rows))
        wanted = gramian.new_tensor([state["square"][row] for row in seen.rows])
        weighting = rules.PCDWeighting(tau=self.tau, beta=0.5)
        weighting._ensure_state(len(seen.rows))
        weighting._n_steps = weighting._n_steps + late
        weighting._sq_norm_ema = 2 * wanted - gramian.diagonal()  # its half and half of the diagonal is what is wanted
        return weighting(gramian)


@dataclasses.dataclass(frozen=True)
class UPGrad(Borrowed):
    """Unconflicting projection: the mean of the gradients, each projected to where it opposes no other; takes SciPy.

    The projection is a problem of non-negative least squares here: TorchJD's own solver, quadprog, is under the GPL.

    Source: Quinton and Rey 2024, section 3, arXiv 2406.16232.
    """

    def solve(self, rules: ModuleType, gramian: Any, seen: Seen) -> Any:
        """Weights of the mean of the projected gradients."""
        return rules.UPGradWeighting(projector=_projector())(gramian)


@dataclasses.dataclass(frozen=True)
class FairGrad(Borrowed):
    """Fair resource allocation: weights x with G x = x ** (-1 / alpha), G the Gramian; takes SciPy.

    Args:
        alpha: 1 = proportional fairness; the higher, the more the worst task counts.
    Source: Ban and Ji 2024, equation 4, arXiv 2402.15638.
    """

    _: dataclasses.KW_ONLY
    alpha: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        require(self.alpha > 0, "`alpha` of FairGrad must be positive", self.alpha)

    def solve(self, rules: ModuleType, gramian: Any, seen: Seen) -> Any:
        """Solved for a Gramian whose trace is 1, from where the solver starts well, then scaled back."""
        trace = gramian.diagonal().sum()
        return rules.FairGradWeighting(self.alpha)(gramian / trace) * trace ** (-self.alpha / (self.alpha + 1))


@dataclasses.dataclass(frozen=True)
class CAGrad(Borrowed):
    """Conflict-averse gradient descent: near the mean gradient, the step best for the worst task; takes CVXPY.

    Args:
        c: How far from the mean gradient, at least 0.
    Source: Liu et al. 2021, algorithm 1 (0.4 in its section 5), arXiv 2110.14048.
    """

    _: dataclasses.KW_ONLY
    c: float = 0.4

    def solve(self, rules: ModuleType, gramian: Any, seen: Seen) -> Any:
        """Weights of that step."""
        return rules.CAGradWeighting(c=self.c)(gramian)


def _projector() -> Any:
    """Projects onto the dual cone: min v' G v with v >= u, by least squares in v - u."""
    import torch
    from scipy.optimize import nnls
    from torchjd.linalg import DualConeProjector

    class NonNegative(DualConeProjector):
        def __call__(self, U: Any, G: Any) -> Any:  # noqa: N803
            values, vectors = torch.linalg.eigh(G / G.diagonal().sum())
            root = (values.clamp(min=0).sqrt()[:, None] * vectors.T).numpy()  # root' root = G
            return torch.stack([u + torch.from_numpy(nnls(root, -root @ u.numpy())[0]) for u in U])

    return NonNegative()
