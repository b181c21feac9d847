"""Settings of labelling: which labels of the training scans a run sees."""

import dataclasses
from collections.abc import Sequence

LABELLINGS = ("all", "disjoint", "matched")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelling:
    """Which labels the training scans keep; validation and test scans always keep theirs.

    A scan that keeps none stays in the batches, so that all runs have the same steps. A task that no pattern names
    keeps all its labels.

    Attributes:
        labels: all = every label; disjoint = every scan keeps those of one pattern; matched = the scans that keep the
            central label under `disjoint` keep all labels, the others none: as many labelled scans of the central task.
        label_patterns: Tasks that a scan keeps, joined by "+"; the same for every run of a study, whatever its tasks.
        label_proportions: Share of the scans per pattern; empty = equal shares.
        label_seed: Seeds which scan has which pattern, and the shuffle.
        shuffle_tasks: Tasks whose labels are exchanged at random among the training scans that have one.
    """

    labels: str = "all"
    label_patterns: Sequence[str] = ()
    label_proportions: Sequence[float] = ()
    label_seed: int = 0
    shuffle_tasks: Sequence[str] = ()

    @property
    def patterns(self) -> list[list[str]]:
        """Tasks of every pattern."""
        return [pattern.split("+") for pattern in self.label_patterns]

    @property
    def tasks(self) -> list[str]:
        """Tasks that the patterns name, in order; none where every label is kept."""
        named = [task for pattern in self.patterns for task in pattern]
        return [] if self.labels == "all" else list(dict.fromkeys(named))

    @property
    def proportions(self) -> list[float]:
        """Share of every pattern; they sum to 1."""
        shares = list(self.label_proportions) or [1.0] * len(self.label_patterns)
        return [share / sum(shares) for share in shares]
