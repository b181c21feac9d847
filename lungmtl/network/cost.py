"""Cost of a policy: passes through the network, counted while it trains."""

import contextlib
from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def counted(network: nn.Module) -> Iterator[dict[str, int]]:
    """Count the passes of batches through a network, except in prediction; results stay bit-identical.

    Args:
        network: A `Network`.
    Yields:
        Counts, updated in place: `forward` and `backward`, passes through the encoder; `backward_features`, backward
        passes to the shared features, including those that continue through the encoder.
    """
    passes = dict.fromkeys(("forward", "backward", "backward_features"), 0)
    encode = network.encode

    def count(name: str) -> None:
        """Count one pass."""
        passes[name] += 1

    def counting(volume: Tensor) -> Tensor:
        """Encode and count; a hook on the features counts the backward passes to them."""
        features = encode(volume)
        if not torch.is_inference_mode_enabled():
            count("forward")
        if features.requires_grad:
            features.register_hook(lambda _: count("backward_features"))
        return features

    handle = next(iter(network.shared_parameters())).register_hook(lambda _: count("backward"))
    network.encode = counting
    try:
        yield passes
    finally:
        handle.remove()
        del network.encode


def seconds_per_step(history: pd.DataFrame, n_steps: int) -> float:
    """Mean seconds of an optimiser step, without validation; `history` as in `Fitted`."""
    epochs = history[history["split"] == "train"].drop_duplicates("epoch")
    return float(epochs["seconds"].sum() / n_steps)
