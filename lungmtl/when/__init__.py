"""When sharing helps: many small networks on vectors in place of scans, for a map over relatedness, scans and steps."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "world": ["Scans", "World", "ceiling", "draw_scans"],
        "together": ["Each", "Together", "projected"],
        "students": ["Budget", "train_students"],
        "early": ["Early", "look", "predictor_table"],
        "cells": ["Cell", "cells_of", "run_cell", "run_map"],
        "advice": ["KEPT", "Place", "beyond", "expected", "relatedness_of"],
        "contrasts": [
            *("contrast_table", "experiment_table", "failure_table", "held_out", "map_tables", "with_tuned"),
        ],
        "foretell": ["foretold_table"],
    },
)
