"""Sources of cohorts: each makes a cohort.csv and a file next to it that says how."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "nlst": ["nlst"],
        "phantom": ["phantom"],
        "phantom_settings": ["Knobs", "PhantomSettings"],
        "readings": ["read_truth"],
        "sample": ["sample"],
    },
)
