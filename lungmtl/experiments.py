"""Names that every room shares: the paper's tasks and experiments in its order, variants, runs, splits.

Sources: Yang et al. 2020, Table 2, arXiv 1912.07167.
"""

from collections.abc import Iterable

CENTRAL_TASK = "lung_cancer"
TASKS = (CENTRAL_TASK, "asthma", "chronic_bronchitis", "copd", "emphysema")
SPLITS = ("train", "validation", "test")
TABLE2 = ("STL", "MTL", "MTL0", "MTL1", "MTL2", "MTL3", "MTL4", "ITW1", "ITW2", "ITW3")  # the paper's order


def run_name(experiment: str, seed: int) -> str:
    """Name of a run and of its folder, e.g. `ITW3-s0`."""
    return f"{experiment}-s{seed}"


def base_of(experiment: str) -> str:
    """Experiment that a variant is made from, the text before its first dot: `ITW2` of `ITW2.start0.5`."""
    return experiment.partition(".")[0]


def in_order(experiments: Iterable[str]) -> list[str]:
    """Different experiments, those of Table 2 first and in the paper's order, then others by name.

    A variant (`ITW2.start0.5`) comes right after its base (`ITW2`).
    """

    def place(name: str) -> tuple[int, str, str]:
        base = base_of(name)
        return (TABLE2.index(base) if base in TABLE2 else len(TABLE2), base, name)

    return sorted(set(experiments), key=place)
