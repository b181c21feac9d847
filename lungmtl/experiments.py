"""What every room shares: the paper's tasks and experiments in its order, variants, runs, splits, levels.

Sources: Yang et al. 2020, Table 2, arXiv 1912.07167.
"""

from collections.abc import Iterable

CENTRAL_TASK = "lung_cancer"
TASKS = (CENTRAL_TASK, "asthma", "chronic_bronchitis", "copd", "emphysema")
SPLITS = ("train", "validation", "test")
TABLE2 = ("STL", "MTL", "MTL0", "MTL1", "MTL2", "MTL3", "MTL4", "ITW1", "ITW2", "ITW3")  # the paper's order
AXES = ("relatedness", "n_scans", "n_steps")  # of the map of when sharing helps
SIGNIFICANCE = 0.05  # of adjusted p values, two-sided for a difference
SMALL_DIFFERENCE = 0.01  # chosen by us: of the map's AUC differences


def run_name(experiment: str, seed: int) -> str:
    """Name of a run and of its folder, e.g. `ITW3-s0`."""
    return f"{experiment}-s{seed}"


def base_of(experiment: str) -> str:
    """Experiment that a variant is made from, the text before its first dot: `ITW2` of `ITW2.start0.5`."""
    return experiment.partition(".")[0]


def root_of(experiment: str) -> str:
    """Experiment that an arm or a variant goes back to: `ITW2` of `ITW2-matched` and `ITW2-matched.start0.5`.

    An arm, `<experiment>-<arm>`, is a control or has other labels or batches; a variant is a candidate of tuning, which
    competes with its base.
    """
    return base_of(experiment).partition("-")[0]


def in_order(experiments: Iterable[str]) -> list[str]:
    """Different experiments, those of Table 2 first and in the paper's order, then others by name.

    A variant (`ITW2.start0.5`) comes right after its base (`ITW2`), then come arms (`ITW2-matched`).
    """

    def place(name: str) -> tuple[int, str, str, str]:
        """What sorts a name: its root's place in Table 2, root, base, name."""
        root = root_of(name)
        return (TABLE2.index(root) if root in TABLE2 else len(TABLE2), root, base_of(name), name)

    return sorted(set(experiments), key=place)
