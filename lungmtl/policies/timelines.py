"""Timelines: the weights of every step of a training, without training."""

import math

import pandas as pd

from lungmtl.policies.contract import Decision, Policy, Step


def timeline(policy: Policy, *, n_steps: int, steps_per_epoch: int) -> pd.DataFrame:
    """Weights of every step of a training of `n_steps` under a schedule.

    Returns:
        One row per step: step, epoch, phase, focus and weight_<task> for every task, as in a run's steps.csv; NaN in
        the phase `learnt` for a policy that is no schedule, whose weights only a training knows.
    """
    n_epochs = math.ceil(n_steps / steps_per_epoch)
    steps = [Step(step, n_steps, step // steps_per_epoch, n_epochs) for step in range(n_steps)]
    return pd.DataFrame([_row(policy, step) for step in steps])


def _row(policy: Policy, step: Step) -> dict[str, int | float | str]:
    unknown = Decision((math.nan,) * len(policy.tasks), "learnt")
    decision = policy(step) if policy.is_schedule else unknown
    weights = {f"weight_{task}": weight for task, weight in zip(policy.tasks, decision.weights, strict=True)}
    return {"step": step.step, "epoch": step.epoch, "phase": decision.phase, "focus": decision.focus} | weights
