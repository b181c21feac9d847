"""The network, its training and prediction: prepared volumes in, logits and attention out."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "settings": ["NETWORKS", "SAMPLERS", "Training"],
        "catalogue": ["Network", "build_network", "start_from"],
        "model": ["MultiTaskNet", "REDUCTION"],
        "checkpoint": ["Checkpoints"],
        "losses": ["positive_weights", "task_losses"],
        "cost": ["counted", "seconds_per_step"],
        "device": ["forward", "pick_device", "resolve_precision", "seed_everything"],
        "others": ["OtherBatches"],
        "sampling": ["Natural", "sampler"],
        "training": ["Fitted", "fit", "learning_rate_share", "predict"],
    },
)
