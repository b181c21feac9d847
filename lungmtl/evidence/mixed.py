"""Mixed model with known errors: a linear model of values whose sampling covariance is known, data sets random."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize

BOUNDS = (-25.0, 5.0)  # of the logarithms of the variances


class Fit(NamedTuple):
    """Coefficients of P terms, their covariance, and the variances of data sets and of what no term explains."""

    coefficients: np.ndarray
    covariance: np.ndarray
    between: float  # of data sets
    rest: float

    def foretell(self, term: np.ndarray) -> tuple[float, float]:
        """Expected value at a term (P,), and the deviation of a true value there, which differs by `rest`."""
        return float(term @ self.coefficients), float(np.sqrt(term @ self.covariance @ term + self.rest))


def fit_mixed(
    values: np.ndarray, terms: np.ndarray, *, known: np.ndarray, groups: Sequence[object] | None = None
) -> Fit:
    """Restricted maximum likelihood of values = terms @ coefficients + data set + rest + error.

    Args:
        values: E.g. differences of logit AUC, (N,).
        terms: (N, P), of full rank, P below N.
        known: Sampling covariance of the values, (N, N), e.g. DeLong's.
        groups: Data set of every value; None if every value has its own, whose variance is then part of `rest`.

    Source: Harville 1977, JASA 72:320-338.
    """
    if terms.shape[0] <= terms.shape[1] or np.linalg.matrix_rank(terms) < terms.shape[1]:
        raise ValueError(f"A mixed model needs more values than terms, of full rank. Found terms {terms.shape}.")
    same = np.zeros_like(known) if groups is None else np.equal.outer(np.asarray(groups), np.asarray(groups))

    def solved(logs: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Twice the negative log likelihood, coefficients and their covariance."""
        between, rest = np.exp(logs)
        inverse = np.linalg.inv(known + between * same + rest * np.eye(len(values)))
        precision = terms.T @ inverse @ terms
        coefficients = np.linalg.solve(precision, terms.T @ inverse @ values)
        residual = values - terms @ coefficients
        logdets = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(inverse)[1]
        return float(logdets + residual @ inverse @ residual), coefficients, np.linalg.inv(precision)

    start = np.log(max(float(np.var(values)), 1e-8) / 2)
    best = optimize.minimize(lambda logs: solved(logs)[0], [start, start], method="Nelder-Mead", bounds=[BOUNDS] * 2)
    between, rest = np.exp(best.x) * [groups is not None, 1]
    return Fit(*solved(best.x)[1:], float(between), float(rest))
