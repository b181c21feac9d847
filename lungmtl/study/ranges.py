"""Ranges of a run's settings: one rule per line, whose sentence the error says."""

from typing import Any

from lungmtl.data import LABELLINGS
from lungmtl.network import NETWORKS, SAMPLERS

Rule = tuple[str, bool, str]  # field, whether it holds, what is required
PHANTOM_SHARES = [f"phantom_{name}" for name in ("relatedness", "exposure_severity", "invisible", "wall_masses")]


def check_ranges(config: Any) -> None:
    """Check every setting of a RunConfig, by itself and against the others.

    Raises:
        ValueError: If a rule does not hold; the first is named.
    """
    for rules in (_of_cohort, _of_labels, _of_policy, _of_training):
        for name, holds, requirement in rules(config):
            if not holds:
                raise ValueError(f"`{name}` must be {requirement}. Found {getattr(config, name)!r}.")


def _of_cohort(c: Any) -> list[Rule]:
    """Run, phantom and splits."""
    ratios = c.phantom_odds_ratios
    return [
        ("study", _is_name(c.study), "a folder name of letters, digits, dot, dash and underscore"),
        ("experiment", _is_name(c.experiment), "a folder name of letters, digits, dot, dash and underscore"),
        ("seed", c.seed >= 0, "at least 0"),
        ("phantom_scans", len(c.phantom_scans) == 3 and min(c.phantom_scans) >= 8, "three counts of at least 8"),
        ("phantom_seed", c.phantom_seed >= 0, "at least 0"),
        ("training_sets", c.training_sets >= 1, "at least 1"),
        ("phantom_label_noise", 0 <= c.phantom_label_noise < 0.5, "at least 0 and below 0.5"),
        *((name, 0 <= getattr(c, name) <= 1, "inside [0, 1]") for name in PHANTOM_SHARES),
        ("phantom_prevalence", 0 < c.phantom_prevalence < 1, "above 0 and below 1"),
        ("phantom_odds_ratios", len(ratios) in (0, 4) and min(ratios, default=1) > 0, "none, or four above 0"),
        (
            "split_fractions",
            len(c.split_fractions) == 3 and min(c.split_fractions) > 0 and abs(sum(c.split_fractions) - 1) < 1e-6,
            "three positive fractions that sum to 1",
        ),
        ("split_seed", c.split_seed >= 0, "at least 0"),
    ]


def _of_labels(c: Any) -> list[Rule]:
    """Labels that training keeps, and the model's grid."""
    kept = c.labelling.tasks
    has_central = set(c.tasks[:1]) <= set(kept)
    return [
        ("labels", c.labels in LABELLINGS, f"one of {', '.join(LABELLINGS)}"),
        ("label_patterns", c.labels == "all" or has_central, "tasks joined by +, the first of `tasks` in one"),
        ("label_patterns", all(kept), "tasks joined by +, none blank"),
        (
            "label_proportions",
            not (shares := c.label_proportions)
            or (len(shares) == len(c.label_patterns) and min(shares) >= 0 and sum(shares) > 0),
            "one share per pattern, at least 0, and not all 0",
        ),
        ("label_seed", c.label_seed >= 0, "at least 0"),
        ("shuffle_tasks", set(c.shuffle_tasks) <= set(c.tasks), f"names from {c.tasks}"),
        ("spacing_mm", len(c.spacing_mm) == 3 and min(c.spacing_mm) > 0, "three positive numbers (z, y, x)"),
        ("shape", len(c.shape) == 3 and min(c.shape) >= 16, "three counts of at least 16 (z, y, x)"),
        ("window_hu", len(c.window_hu) == 2 and c.window_hu[0] < c.window_hu[1], "two numbers, low before high"),
        ("region", c.region in ("wide", "tight"), "wide or tight"),
    ]


def _of_policy(c: Any) -> list[Rule]:
    """Tasks, weights, PFLP and ITW."""
    order = c.pflp_order or c.tasks
    return [
        ("tasks", bool(c.tasks) and len(set(c.tasks)) == len(c.tasks), "a list of different names"),
        ("weights", len(c.weights) == len(c.tasks), f"one weight per task, {len(c.tasks)} in all"),
        ("weights", all(w >= 0 for w in c.weights) and sum(c.weights) > 0, "at least 0, and not all 0"),
        ("pflp_factor", 0 <= c.pflp_factor <= 1, "inside [0, 1]"),
        ("pflp_period", c.pflp_period >= 1, "at least 1"),
        ("pflp_unit", c.pflp_unit in ("step", "epoch"), "step or epoch"),
        ("pflp_order", set(order) <= {*c.tasks, ""}, f"names from {c.tasks}, or blank for a turn without focus"),
        ("itw_start", 0 <= c.itw_start < 1, "inside [0, 1)"),
        ("itw_factor", 0 <= c.itw_factor <= 1, "inside [0, 1]"),
    ]


def _of_training(c: Any) -> list[Rule]:
    """Network, optimiser and machine."""
    return [
        ("network", c.network in NETWORKS, f"one of {', '.join(NETWORKS)}"),
        ("width", c.width >= 4 and c.width % 4 == 0, "a positive multiple of 4"),
        ("epochs", c.epochs >= 1, "at least 1"),
        ("batch_size", c.batch_size >= 2, "at least 2"),
        ("sampler", c.sampler in SAMPLERS, f"one of {', '.join(SAMPLERS)}"),
        ("learning_rate", c.learning_rate > 0, "positive"),
        ("weight_decay", c.weight_decay >= 0, "at least 0"),
        ("warmup", 0 <= c.warmup < 1, "inside [0, 1)"),
        ("class_balance", c.class_balance in ("positives", "none"), "positives or none"),
        ("selection", c.selection in ("best_auc", "last"), "best_auc or last"),
        ("precision", c.precision in ("auto", "bf16", "fp32"), "auto, bf16 or fp32"),
        ("threads", c.threads >= 1, "at least 1"),
        ("checkpoint_minutes", c.checkpoint_minutes >= 0, "at least 0"),
    ]


def _is_name(text: str) -> bool:
    return bool(text) and text[0].isalnum() and all(char.isalnum() or char in "._-" for char in text)
