"""How an experiment's policies are asked for its students: one policy per seed, or a gradient rule for all at once.

One gradient policy per seed would take most of the map's time. Each rule here computes, from Gramians stacked over the
seeds, the weights of the policy of its name in `lungmtl.policies`, which cites the paper. Only the order of PCGrad's
projections is drawn from other random numbers.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from lungmtl.policies import Policy, Step

EPS = np.finfo(float).eps


class Each:
    """A policy for each of the S students of one experiment, or one for all, as a schedule can be."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        is_one = all(policy is policies[0] for policy in policies)
        self.policies = policies[:1] if is_one else policies
        self.needs_gradients = policies[0].needs_gradients

    def answers(
        self, at: dict[str, int], losses: Tensor, known: Tensor, gramians: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Weights of a step, (S, T), and which students begin a fresh optimiser, (S,).

        Args:
            at: Where the training is, as `Step` has it.
            losses: (S, T).
            known: Which tasks have a label in the batch, bool (S, T).
            gramians: Products of the tasks' gradients, (S, T, T); none where no policy needs them.
        """
        products = [None] * len(losses) if gramians is None else gramians
        decisions = [
            policy(Step(**at, losses=losses[s], known=known[s], gramian=products[s]))
            for s, policy in enumerate(self.policies)
        ]
        weights, restarts = torch.zeros(len(decisions), losses.shape[1]), [one.restart for one in decisions]
        weights[:, : len(self.policies[0].tasks)] = torch.tensor([one.weights for one in decisions])
        return weights.expand_as(losses), torch.tensor(restarts).expand(len(losses))


class Together:
    """One rule for the S students of one experiment; `policies` as `train_students` is given them."""

    needs_gradients = True

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.base = np.array(policies[0].weights)
        self.rule = GRADIENT_RULES[type(policies[0]).__name__](policies)

    def __call__(self, gramians: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Weights of a step, (S, T).

        Args:
            gramians: Products of the tasks' gradients, (S, T, T).
            known: Which tasks have a label in the batch, bool (S, T).
        """
        takes_part = known & (self.base > 0)
        scaled = self.base[:, None] * gramians.astype(float) * self.base
        moving = takes_part & (np.diagonal(scaled, axis1=1, axis2=2) > 0)
        factors = self.rule(np.where(moving[:, :, None] & moving[:, None], scaled, 0.0), moving)
        return self.base * np.where(moving, factors.clip(min=0), takes_part)

    def answers(self, _at: dict[str, int], losses: Tensor, known: Tensor, gramians: Tensor) -> tuple[Tensor, Tensor]:
        """As of `Each`; no rule begins a fresh optimiser."""
        weights = torch.from_numpy(self(gramians.numpy(), known.numpy()))
        return weights, torch.zeros(len(losses), dtype=torch.bool)


def mgda(_: Sequence[Policy]) -> Callable:
    """Frank-Wolfe, as many iterations as TorchJD's, which stops each student at a step below 0.001."""

    def weigh(gramians: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """The point of least length on the gradients' simplex, (S, T)."""
        seeds, lengths = np.arange(len(moving)), np.diagonal(gramians, axis1=1, axis2=2)
        alpha = moving / moving.sum(axis=1, keepdims=True).clip(min=1)
        along = np.matmul(gramians, alpha[:, :, None])[:, :, 0]  # (S, T)
        absent, goes_on = np.where(moving, 0.0, np.inf), moving.any(axis=1)
        for _ in range(100):
            t = (along + absent).argmin(axis=1)
            a, b, c = along[seeds, t], (alpha * along).sum(axis=1), lengths[seeds, t]
            gamma = np.where(c <= a, 1.0, (b - a) / np.where(b > a, b + c - 2 * a, 1.0).clip(min=1e-300))
            gamma = np.where((c > a) & (b <= a), 0.0, gamma) * goes_on
            alpha *= (1 - gamma)[:, None]
            alpha[seeds, t] += gamma
            along += gamma[:, None] * (gramians[seeds, t] - along)
            goes_on &= gamma >= 0.001
            if not goes_on.any():
                break
        return alpha

    return weigh


def pcgrad(policies: Sequence[Policy]) -> Callable:
    """Every gradient loses what opposes another, one other at a time in an order drawn for each."""
    generators = [np.random.default_rng(policy.seed) for policy in policies]

    def weigh(gramians: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """Sums of the projected gradients' weights, (S, T)."""
        n_tasks = moving.shape[1]
        drawn = [generator.random((n_tasks, n_tasks)) for generator in generators]
        return projected(gramians, np.stack(drawn).argsort(axis=2))

    return weigh


def projected(gramians: np.ndarray, order: np.ndarray) -> np.ndarray:
    """PCGrad's weights (S, T); `order` (S, T, T) says per gradient in which order it meets the others."""
    n, n_tasks = order.shape[:2]
    weights = np.broadcast_to(np.eye(n_tasks), order.shape).copy()  # (S, T, T), a row per gradient
    seeds, own = np.arange(n)[:, None], np.arange(n_tasks)
    for other in np.moveaxis(order, 2, 0):  # (S, T)
        product_ = (gramians[seeds, other] * weights).sum(axis=2)
        opposed = (product_ < 0) & (other != own)
        length = np.where(opposed, gramians[seeds, other, other], 1.0)
        weights[seeds, own, other] -= np.where(opposed, product_ / length, 0.0)
    return weights.sum(axis=1)


def imtlg(_: Sequence[Policy]) -> Callable:
    """Weights of equal projections, which sum to 1."""

    def weigh(gramians: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """Weights from the Gramians' inverse and the gradients' lengths, (S, T)."""
        lengths = np.sqrt(np.diagonal(gramians, axis1=1, axis2=2))
        found = (np.linalg.pinv(gramians, rcond=moving.shape[1] * EPS, hermitian=True) @ lengths[:, :, None])[:, :, 0]
        total = found.sum(axis=1, keepdims=True)
        return np.where(np.abs(total) < 1e-12, 0.0, found / np.where(np.abs(total) < 1e-12, 1.0, total))

    return weigh


class Pcd:
    """The central gradient bent as little as its constraints allow; every set of binding ones is tried (appendix B.2).

    Keeps the moving average of each task's squared length.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        n_tasks = len(policies[0].tasks)
        self.tau, self.beta = policies[0].tau, policies[0].beta
        self.square, self.count = np.zeros((2, len(policies), n_tasks))
        self.binding = np.array(list(product([False, True], repeat=n_tasks - 1)))  # (2^(T-1), T-1)

    def __call__(self, gramians: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """Weights of a step, as long as the central gradient; 0 where that takes no part."""
        squares = np.diagonal(gramians, axis1=1, axis2=2)
        self.count += moving
        share = (1 - self.beta) / (1 - self.beta ** self.count.clip(min=1))
        self.square += np.where(moving, share * (squares - self.square), 0.0)
        scales = np.where(moving, 1 / np.sqrt(self.square + 1e-8), 0.0)
        normal = scales[:, :, None] * gramians * scales[:, None]
        found = np.concatenate([np.ones((len(moving), 1)), self._multipliers(normal, moving)], axis=1)
        length = np.einsum("si,sij,sj->s", found, normal, found)
        found *= scales * np.sqrt(squares[:, 0] / np.where(length > 0, length, 1.0))[:, None]
        return np.where(moving[:, :1] & (length > 0)[:, None], found, 0.0)

    def _multipliers(self, normal: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """Of the constraints of the auxiliary tasks, (S, T-1); zeros where they cannot all hold."""
        inner, lengths = normal[:, 1:, 1:], np.diagonal(normal, axis1=1, axis2=2)
        asked = self.tau * lengths[:, 1:] - normal[:, 1:, 0]  # (S, T-1)
        binding = self.binding[:, None] & moving[:, 1:]  # (A, S, T-1)
        both = binding[..., :, None] & binding[..., None, :]
        identity = np.eye(inner.shape[1])
        system = np.where(both, inner, identity) + 1e-14 * identity  # two gradients may be the same
        found = np.linalg.solve(system, (asked * binding)[..., None])[..., 0]
        slack = (inner @ found[..., None])[..., 0] - asked
        scale = 1e-9 * lengths.max(axis=1)[:, None]
        holds = (found >= -1e-12).all(axis=2) & ((slack >= -scale) | ~moving[:, 1:]).all(axis=2)  # (A, S)
        best = holds.argmax(axis=0)
        chosen = found[best, np.arange(len(best))]
        return np.where(holds.any(axis=0)[:, None], chosen.clip(min=0), 0.0)


GRADIENT_RULES = {"MGDA": mgda, "PCGrad": pcgrad, "IMTLG": imtlg, "PCD": Pcd}


def asked(policies: Sequence[Policy]) -> Each | Together:
    """The policies of one experiment, asked per seed or together."""
    return (Together if type(policies[0]).__name__ in GRADIENT_RULES else Each)(policies)
