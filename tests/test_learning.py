"""The whole way from phantoms to probabilities: what is easy to see is learnt."""

import pytest

from lungmtl.data.cohort import read_cohort
from lungmtl.data.dataset import ScanDataset
from lungmtl.data.preparation import Preparation
from lungmtl.data.prepared import prepare_cohort
from lungmtl.evidence.areas import auc
from lungmtl.experiments import SPLITS
from lungmtl.network.device import seed_everything
from lungmtl.network.losses import positive_weights
from lungmtl.network.model import MultiTaskNet
from lungmtl.network.settings import Training
from lungmtl.network.training import fit, predict
from lungmtl.policies.schedules import BW
from lungmtl.sources.phantom import make_cohort
from lungmtl.sources.phantom_settings import PhantomSettings

TASKS = ["emphysema"]  # dark spots all over the lungs: no nodule to be found first
GRID = Preparation(spacing_mm=(8.0, 8.0, 8.0), shape=(32, 32, 40), window_hu=(-1000.0, 400.0))


@pytest.mark.slow
def test_an_easy_phantom_is_learnt(tmp_path):
    settings = PhantomSettings(n_train=160, n_validation=32, n_test=64, seed=11, label_noise=0)
    table = make_cohort(tmp_path, settings, workers=2, progress=False)
    frame = read_cohort(table)
    folder, _ = prepare_cohort(frame, tmp_path, GRID, cache_dir=tmp_path, workers=2, progress=False)
    scans = {s: ScanDataset(frame[frame["split"] == s], folder, tasks=TASKS) for s in SPLITS}
    seed_everything(0)

    training = Training(
        epochs=10, batch_size=8, learning_rate=0.002, weight_decay=0.01, warmup=0.1, augment=True, selection="last"
    )
    fitted = fit(
        MultiTaskNet(TASKS, width=8), scans["train"], scans["validation"], policy=BW(TASKS, [1.0]), training=training,
        positive_weight=positive_weights(scans["train"].target, scans["train"].known), precision="fp32", seed=0,
    )  # fmt: skip
    probability = predict(fitted.model, scans["test"], batch_size=8, precision="fp32")
    known = scans["test"].known[:, 0].numpy()

    assert auc(scans["test"].target[:, 0].numpy()[known], probability[known, 0]) > 0.9
