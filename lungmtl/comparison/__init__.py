"""Comparison: predictions of many runs in, tidy tables out."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "aucs": ["auc_table", "ensemble_table", "run_table"],
        "curves": ["reliability_table", "roc_table"],
        "differences": ["comparison_table", "ensemble_comparison_table", "seed_comparison_table", "verdicts"],
        "parts": ["CONTRASTS", "QUESTIONS", "parts_table"],
        "printed": ["PUBLISHED", "PUBLISHED_N", "format_table", "published_table", "seconds_table", "cost_table"],
        "screening": ["missing_runs", "screen"],
        "subgroups": ["subgroup_table"],
        "uncertainty": ["POWER_SIZES", "power_table", "variance_table"],
        "variants": ["selected_table"],
    },
)
