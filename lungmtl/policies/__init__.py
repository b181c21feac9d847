"""Policies: how the losses of several tasks are weighed, for any training loop.

Schedules, loss rules and `AutoLambda` need nothing but Python, `gramian` and `look_ahead` torch, `timeline` pandas;
gradient rules say what they need.
"""

from lungmtl.lazy import exports
from lungmtl.policies.catalogue import POLICIES

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "contract": ["Decision", "Policy", "Progress", "Step", "Wrapper"],
        "rules": ["GradientRule", "Rule", "Seen"],
        "gramians": ["gramian"],
        "ahead": ["look_ahead"],
        "catalogue": ["POLICIES", "Weighting", "build", "describe", "names", "with_setting"],
        "timelines": ["timeline"],
        "watching": ["Watching", "agreement"],
        **{file: [name for name, home in POLICIES.items() if home == file] for file in POLICIES.values()},
    },
)
