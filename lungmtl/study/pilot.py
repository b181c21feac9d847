"""A pilot on a run's scans: how far the gradients of its tasks agree in a short training, and with shuffled labels."""

import dataclasses

import torch

from lungmtl import network as networks
from lungmtl.policies import Watching, agreement
from lungmtl.study.config import RunConfig
from lungmtl.study.run import datasets, gather, new_network, train


def run_pilot(config: RunConfig, *, n_steps: int, n_seeds: int) -> dict[str, float]:
    """Train with balanced weights for whole epochs of at least `n_steps`, as often as there are seeds, twice.

    Args:
        config: Cohort, tasks, network and training; its policy and number of epochs do not count.
    Returns:
        `agreement` of the auxiliary gradients with the central one at the shared features, and `shuffled`, the same
        with the auxiliary labels exchanged among the training scans.
    Raises:
        ValueError: As `gather` does.
    """
    torch.set_num_threads(config.threads)
    changed = dataclasses.replace(config, shuffle_tasks=config.tasks[1:])
    found = {"agreement": config, "shuffled": changed}
    return {name: agreement(_watched(one, n_steps, n_seeds)) for name, one in found.items()}


def _watched(config: RunConfig, n_steps: int, n_seeds: int) -> list[Watching]:
    scans = datasets(config, gather(config))
    epochs = -(-n_steps // (len(scans["train"]) // config.batch_size))
    short = dataclasses.replace(config, epochs=epochs, selection="last")
    policies = [Watching(config.tasks, [1.0] * len(config.tasks)) for _ in range(n_seeds)]
    for seed, policy in enumerate(policies):
        networks.seed_everything(seed)
        train(dataclasses.replace(short, seed=seed), new_network(config), scans, policy)
    return policies
