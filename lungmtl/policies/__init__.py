"""Policies: how the losses of several tasks are weighed, for any training loop; needs nothing but Python.

`timeline` alone takes pandas.
"""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "contract": ["Decision", "Policy", "Progress", "Step", "Wrapper"],
        "schedules": ["Alone", "BW", "ITW", "PFLP"],
        "catalogue": ["POLICIES", "Weighting", "build", "describe", "names", "with_setting"],
        "timelines": ["timeline"],
    },
)
