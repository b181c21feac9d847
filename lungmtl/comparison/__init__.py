"""Comparison: predictions of many runs in, tidy tables out."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "aucs": ["auc_table", "ensemble_table", "reliability_table", "roc_table", "run_table"],
        "confirm": ["confirm_table", "failures_table", "joint_table", "mixed_table"],
        "differences": [
            *("comparison_table", "ensemble_comparison_table", "gain_needed", "judged_by", "seed_comparison_table"),
            "MARGIN",
            "verdicts",
        ],
        "learning": ["FLAT_RISE", "LEARNT_LOW", "ceiling_table", "early_table", "learning_table", "learnt_table"],
        "missed": ["chosen", "missed_table"],
        "parts": ["parts_table"],
        "printed": [
            *("PUBLISHED", "PUBLISHED_N", "cost_table", "format_result", "format_table", "published_table"),
            *("result_table", "seconds_table"),
        ],
        "screening": ["missing_runs", "screen"],
        "subgroups": ["subgroup_table"],
        "uncertainty": ["POWER_SIZES", "power_table", "variance_table"],
        "variants": ["selected_table"],
    },
)
