"""Evidence: arrays in, numbers with their uncertainty out; knows nothing of runs or files."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "areas": [
            *("Difference", "Interval", "MIN_ERROR", "auc", "auc_interval", "compare_auc", "delong_covariance"),
            *("difference_interval", "equivalence"),
        ],
        "attention": ["hit_rate", "peak_inside", "swapped_chance"],
        "failing": ["allowing_difference", "allowing_mean"],
        "decisions": ["holm", "mcnemar_exact", "rate"],
        "mixed": ["Fit", "fit_mixed"],
        "probabilities": ["calibration", "reliability"],
        "resampling": ["Areas", "bootstrap_areas", "mean_auc", "mean_difference", "patient_weights"],
        "run_metrics": ["roc_curve", "run_scores", "scores", "youden_threshold"],
        "variance": ["detectable_difference", "variance_parts"],
    },
)
