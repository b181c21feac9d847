"""Figures: a tidy frame in, a matplotlib Figure out.

Nothing here reads, saves or shows. Every function is decorated with `@styled`, takes its axes from `new_figure`, and
gives the number of scans and seeds and the name of the interval in its caption (`captioned`)."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "aucs": ["auc_by_task", "published_aucs", "reliability", "roc_curves"],
        "cohort": ["cooccurrence", "histograms", "prevalence"],
        "controls": ["live"],
        "differences": ["contrasts", "forest", "sensitivity", "subgroups"],
        "maps": ["contour_maps", "difference_maps", "failure_map"],
        "missed": ["missed_scans"],
        "slices": ["AttentionView", "ScanView", "attention_slices", "scan_slices"],
        "training": ["learning_curves", "run_seconds", "weight_timeline"],
        "uncertainty": ["coverage", "power", "variance_parts"],
        "words": ["sentence", "task_label"],
    },
)
