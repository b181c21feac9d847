"""Made-up frames, and every figure drawn from them."""

import itertools

import numpy as np
import pandas as pd

from lungmtl import figures
from lungmtl.figures.style import COLORS
from lungmtl.when import failure_table

EXPERIMENTS = list(COLORS)
CHANGES = ("factor0", "factor0.1", "order-reversed", "period10", "restart", "start0.5", "start0.7", "start0.8")
VARIANTS = [f"ITW2.{change}" for change in CHANGES] + ["MTL.aux0.1", "MTL.aux0.3"]
MANY = [*EXPERIMENTS, *VARIANTS, "mine", "other"]  # 22
TASKS = ["lung_cancer", "asthma", "chronic_bronchitis", "copd", "emphysema"]
INTERVAL = "95 % seed and patient bootstrap"


def aucs(experiments=EXPERIMENTS, *, n_seeds=5):
    rows = [
        (name, task, 0.70 + 0.01 * i, 0.62 + 0.01 * i, 0.99, INTERVAL, n_seeds, 600, 180)
        for i, name in enumerate(experiments)
        for task in (TASKS[:1] if name == "STL" else TASKS)
    ]
    columns = ["experiment", "task", "auc", "low", "high", "interval", "n_seeds", "n", "positives"]
    return pd.DataFrame(rows, columns=columns)


def comparisons(experiments=EXPERIMENTS):
    pairs = [(name, "STL") for name in experiments if name != "STL"]
    pairs += [(name, "MTL") for name in experiments if name not in ("STL", "MTL")]
    frame = pd.DataFrame(pairs, columns=["experiment", "reference"])
    return frame.assign(
        difference=-0.012, low=-0.112, high=0.104, low_90=-0.1, high_90=0.09, p=0.0001, p_holm=0.0004,
        equivalence_p=0.3, equivalence_p_holm=0.9, margin=0.02, verdict="lower", interval=INTERVAL,
        n_family=len(frame), n_seeds=5, n=600, positives=180,
    )  # fmt: skip


def confirmed():
    questions = ["sharing", "focus", "transfer", "transfer", "tuned weights", "fine-tuning", "modulation"]
    sides = [("MTL", "STL"), ("MTL2", "MTL2-mean"), ("ITW2", "MTL2"), ("ITW3", "MTL3"), ("ITW1", "MTL"),
             ("ITW2", "FineTune"), ("ITW2", "STL-wave")]  # fmt: skip
    frame = pd.DataFrame(sides, columns=["experiment", "reference"]).assign(question=questions)
    return frame.assign(
        difference=-0.012, low=-0.112, high=0.104, p_holm=0.0004, verdict="lower", n_family=7, n_seeds=4, n=1920,
        positives=600,
    )  # fmt: skip


def curves(experiments=EXPERIMENTS, *, n_seeds=5):
    rates = np.linspace(0, 1, 101)
    runs = itertools.product(experiments, range(n_seeds))
    return pd.concat(
        pd.DataFrame(
            {"experiment": name, "seed": seed, "false_positive_rate": rates, "sensitivity": rates ** (0.3 + seed / 20)}
        )
        for name, seed in runs
    )


def history(experiments=EXPERIMENTS, *, n_seeds=5):
    places = itertools.product(experiments, range(n_seeds), range(15), ("train", "validation"), TASKS[:2])
    frame = pd.DataFrame(places, columns=["experiment", "seed", "epoch", "split", "task"])
    frame["loss"] = 0.7 - 0.03 * frame["epoch"] + 0.01 * frame["seed"]
    return frame.assign(auc=(1 - frame["loss"]).where(frame["split"] == "validation"))


def seconds(experiments=EXPERIMENTS):
    frame = pd.DataFrame({"experiment": experiments, "n_seeds": 5, "prepare": 1.0, "train": 120.0, "evaluate": 6.0})
    return frame.assign(total=127.0, total_min=110.0, total_max=150.0)


def published():
    frame = pd.DataFrame({"experiment": ["STL", "MTL", "MTL2", "MTL3", "ITW3"], "paper_n": 592})
    frame["setting"] = [
        "single task",
        "multi-task, weights not adaptive",
        "with PFLP",
        "with PFLP",
        "with PFLP and ITW",
    ]
    frame["paper_auc"] = [0.808, 0.672, 0.8402, 0.8402, 0.8462]
    return frame.merge(aucs().query("task == 'lung_cancer'"), on="experiment")


def variance(experiments=EXPERIMENTS):
    places = [(name, reference) for reference in ("", "STL", "MTL") for name in experiments if name != reference]
    frame = pd.DataFrame(places, columns=["experiment", "reference"])
    return frame.assign(seed_variance=1e-4, patient_variance=3e-4, total_variance=4e-4, n_seeds=5, n=600)


def bins(experiments=EXPERIMENTS):
    frame = pd.DataFrame(itertools.product(experiments, np.linspace(0.05, 0.95, 10)))
    frame.columns = ["experiment", "predicted"]
    low, high = (frame["predicted"] + 0.1 * sign for sign in (-1, 1))
    return frame.assign(observed=frame["predicted"], low=low, high=high, n=60)


def detectable(experiments=EXPERIMENTS):
    pairs = [(name, reference) for reference in ("STL", "MTL") for name in experiments if name != reference]
    rows = [
        (*pair, n, (1 + 0.02 * i) * np.sqrt(0.7 / n + 1e-5 / n_seeds), n_seeds)
        for i, pair in enumerate(pairs)
        for n in (100, 592, 600, 5000, 20_000)
        for n_seeds in (1, 5)
    ]
    return pd.DataFrame(rows, columns=["experiment", "reference", "n", "detectable", "n_seeds"])


def in_subgroups(experiments=EXPERIMENTS, *, reference="STL"):
    of_positives = ("at most 18.3, against all negatives", "above 18.3, against all negatives")
    groups = {"sex": ("female", "male"), "nodule_mm": of_positives, "chronic_bronchitis": ("no", "yes")}
    places = [(attribute, name) for attribute, names in groups.items() for name in names]
    rows = [(*place, name, reference) for name in experiments if name != reference for place in places]
    frame = pd.DataFrame(rows, columns=["attribute", "subgroup", "experiment", "reference"])
    return frame.assign(value=-0.02, low=-0.1, high=0.05, interval=INTERVAL, n_seeds=5, n=600, positives=180)


def simulated(*, n_settings=2):
    settings = [f"{i} scans, 8 positive" for i in range(n_settings)]
    places = itertools.product(["DeLong, logit scale", "patient bootstrap"], settings)
    frame = pd.DataFrame(places, columns=["interval", "setting"])
    return frame.assign(nominal=0.95, coverage=0.96, low=0.955, high=0.965, n_simulations=1000)


SELECTED = pd.DataFrame({"group": ["ITW2", "MTL"], "experiment": ["ITW2.start0.7", "MTL"]})
CAPTION = "600 test scans."
QUANTITIES = {"slice_mm": "slice distance (mm)", "lung_volume_l": "lung volume (L)"}
REFERENCE = {"lung_volume_l": 4.2}
WINDOW = {"window": (-1100, 300), "caption": CAPTION}
GRID = {"spacing_mm": (8.0, 8.0, 8.0), "cell": 8, "caption": CAPTION}


def weights(experiments=EXPERIMENTS, *, n_steps=12):
    """The first task alone in phase 2, which begins after two thirds of the steps; STL has one task and one phase."""
    frame = pd.DataFrame(itertools.product(experiments, range(n_steps)), columns=["experiment", "step"])
    is_second = (frame["step"] >= 2 * n_steps // 3) & (frame["experiment"] != "STL")
    others = {f"weight_{task}": np.where(is_second, 0.0, 0.3) for task in TASKS[1:]}
    frame = frame.assign(phase=np.where(is_second, "alone", "all"), weight_lung_cancer=3.0, **others)
    frame.loc[frame["experiment"] == "STL", list(others)] = np.nan
    return frame


def shares():
    frame = pd.DataFrame(itertools.product(("train", "validation", "test"), TASKS), columns=["split", "task"])
    share = 0.1 + 0.02 * frame.index
    return frame.assign(n=90, positives=30, unknown=10, share=share, low=share - 0.05, high=share + 0.08)


def together():
    return pd.DataFrame(np.linspace(0, 1, 25).reshape(5, 5), index=TASKS, columns=TASKS)


def measured():
    return pd.DataFrame({"slice_mm": [1.0, 1.0, 2.5, np.nan], "lung_volume_l": [3.0, 4.0, 5.0, 6.0]})


def scan_view(title, shape=(8, 10, 12)):
    lungs = np.zeros(shape, dtype=bool)
    lungs[2:6, 3:8, 3:9] = True
    return figures.ScanView(title, np.where(lungs, -900, 0), (2.0, 1.0, 1.0), lungs, (4, 5, 6))


def attention_view(title, shape=(32, 32, 40)):
    attention = np.full((4, 4, 5), 0.01)
    attention[2, 1, 2] = 0.21
    outline = np.zeros(shape)
    outline[14:18, 10:14, 20:25] = 1
    return figures.AttentionView(title, np.full(shape, 0.2), attention, outline, (16, 12, 22))


def missed(experiments):
    frame = pd.DataFrame(itertools.product(experiments, range(40)), columns=["experiment", "number"])
    frame["wrong"] = frame["number"] % 6 / 5
    frame = frame.assign(scan=frame["number"].map("s{:05d}".format), target=frame["number"] % 2, n_seeds=5)
    return frame.assign(nodule_mm=np.where(frame["target"] == 1, 12.3, np.nan))


def mapped():
    """Contrasts and experiments of a small map."""
    cells = itertools.product((0.0, 0.5, 1.0), (160, 640, 2560), (800, 7200))
    grid = pd.DataFrame(cells, columns=["relatedness", "n_scans", "n_steps"])
    value = 0.04 * (grid["relatedness"] - 0.5) * np.log(grid["n_scans"] / 40)
    contrasts = grid.assign(difference=value, low=value - 0.004, high=value + 0.004, experiment="ITW2", reference="STL")
    return contrasts.assign(n_seeds=16), pd.concat(grid.assign(experiment=name, learnt=0.9) for name in MANY)


def drawn(experiments):
    """Figures that grow with the number of experiments."""
    central = aucs(experiments).query("task == 'lung_cancer'")
    return {
        "auc_by_task": lambda: figures.auc_by_task(aucs(experiments)),
        "forest": lambda: figures.forest(comparisons(experiments)),
        "roc_curves": lambda: figures.roc_curves(curves(experiments), central),
        "learning_auc": lambda: figures.learning_curves(
            history(experiments), task="lung_cancer", value="auc", starts={"ITW2": 9.0}
        ),
        "learning_loss": lambda: figures.learning_curves(history(experiments)),
        "run_seconds": lambda: figures.run_seconds(seconds(experiments)),
        "variance_parts": lambda: figures.variance_parts(variance(experiments)),
        "reliability": lambda: figures.reliability(bins(experiments), caption=CAPTION),
        "power": lambda: figures.power(detectable(experiments), n=600, published_n=592, caption=CAPTION),
        "weights": lambda: figures.weight_timeline(weights(experiments)),
        "subgroups": lambda: figures.subgroups(in_subgroups(experiments)),
        "missed_scans": lambda: figures.missed_scans(missed(experiments), task="lung_cancer"),
    }


MAP = {"titles": {("ITW2", "STL"): "ITW2 minus STL"}}
OTHERS = {
    "difference_maps": lambda: figures.difference_maps(mapped()[0], **MAP),
    "contour_maps": lambda: figures.contour_maps(mapped()[0], **MAP),
    "failure_map": lambda: figures.failure_map(failure_table(mapped()[1].assign(n_seeds=16))),
    "contrasts": lambda: figures.contrasts(confirmed(), margin=0.02),
    "published_aucs": lambda: figures.published_aucs(published()),
    "sensitivity": lambda: figures.sensitivity(comparisons(MANY), SELECTED),
    "coverage": lambda: figures.coverage(simulated()),
    "prevalence": lambda: figures.prevalence(shares()),
    "cooccurrence": lambda: figures.cooccurrence(together(), caption=CAPTION),
    "histograms": lambda: figures.histograms(measured(), labels=QUANTITIES, reference=REFERENCE, caption=CAPTION),
    "scan_slices": lambda: figures.scan_slices([scan_view("real CT"), scan_view("b", (6, 8, 9))], **WINDOW),
    "attention_slices": lambda: figures.attention_slices([attention_view("a"), attention_view("b")], **GRID),
    "coverage-90": lambda: figures.coverage(simulated(n_settings=45)),
}
DRAWN = drawn(["STL", "MTL", "ITW2"]) | OTHERS
LARGE = drawn(EXPERIMENTS) | {f"{name}-22": draw for name, draw in drawn(MANY).items()} | OTHERS
