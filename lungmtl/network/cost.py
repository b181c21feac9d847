"""Cost of a policy: passes through the network, counted while it trains."""

import contextlib
from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def counted(network: nn.Module) -> Iterator[dict[str, int]]:
    """Count the passes of whole batches through a network, prediction left out; changes no bit of them.

    Args:
        network: As `Network` says.
    Yields:
        `forward`, passes through the encoder; `backward`, passes back through the encoder; `backward_features`, passes
        back to the shared features, which every pass through the encoder includes; all 0, and growing.
    """
    passes = dict.fromkeys(("forward", "backward", "backward_features"), 0)
    encode = network.encode

    def count(name: str) -> None:
        """One more pass of this kind."""
        passes[name] += 1

    def counting(volume: Tensor) -> Tensor:
        """The encoder, counted forward and, by a hook on its features, back to them."""
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
    """Mean seconds of an optimiser step, validation left out; `history` as `Fitted` has it."""
    epochs = history[history["split"] == "train"].drop_duplicates("epoch")
    return float(epochs["seconds"].sum() / n_steps)
