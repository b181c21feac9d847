"""A wrong parameter is refused in words before anything runs."""

import dataclasses
import math

import pytest
import yaml

from lungmtl.experiments import TASKS
from lungmtl.study.config import RunConfig, read_params

# one row per rule of RunConfig: parameters, and what the message must say
BAD_VALUES = [
    ({"region": "lungs"}, "`region` must be wide or tight. Found 'lungs'"),
    ({"policy": "PCGRAD(PFLP)"}, "A policy must be one of BW, PFLP, ITW, Alone, RLW"),
    ({"labels": "some"}, "`labels` must be one of all, disjoint, matched"),
    ({"labels": "disjoint"}, r"`label_patterns` must be tasks joined by \+, the first of `tasks` in one"),
    ({"label_patterns": ["copd"], "labels": "matched"}, "the first of `tasks` in one"),
    ({"label_patterns": ["lung_cancer+"], "labels": "disjoint"}, "none blank"),
    ({"label_patterns": ["copd"], "label_proportions": [0.0]}, "`label_proportions` must be one share per pattern"),
    ({"label_seed": -1}, "`label_seed` must be at least 0"),
    ({"shuffle_tasks": ["flu"]}, "`shuffle_tasks` must be names from"),
    ({"sampler": "luck"}, "`sampler` must be one of natural, each, turns, focus"),
    ({"network": "resnet"}, "`network` must be one of attention. Found 'resnet'"),
    ({"study": ""}, "`study` must be a folder name"),
    ({"study": "../elsewhere"}, "`study` must be a folder name"),
    ({"experiment": "a/b"}, "`experiment` must be a folder name"),
    ({"seed": -1}, "`seed` must be at least 0. Found -1"),
    ({"training_sets": 0}, "`training_sets` must be at least 1"),
    ({"phantom_scans": [32, 16]}, "`phantom_scans` must be three counts of at least"),
    ({"phantom_scans": [32, 16, 0]}, "`phantom_scans` must be three counts of at least"),
    ({"phantom_label_noise": 0.5}, "`phantom_label_noise` must be at least 0 and below 0.5"),
    ({"phantom_relatedness": 1.1}, r"`phantom_relatedness` must be inside \[0, 1\]"),
    ({"phantom_exposure_severity": -0.1}, r"`phantom_exposure_severity` must be inside \[0, 1\]"),
    ({"phantom_odds_ratios": [2.0]}, r"`phantom_odds_ratios` must be none, or four above 0. Found \[2.0\]"),
    ({"phantom_odds_ratios": [2.0, 1.0, 1.0, 0.0]}, "`phantom_odds_ratios` must be none, or four above 0"),
    ({"phantom_prevalence": 1.0}, "`phantom_prevalence` must be above 0 and below 1"),
    ({"phantom_invisible": 2}, r"`phantom_invisible` must be inside \[0, 1\]"),
    ({"phantom_wall_masses": -1}, r"`phantom_wall_masses` must be inside \[0, 1\]"),
    ({"split_fractions": [0.5, 0.4, 0.3]}, "`split_fractions` must be three positive fractions that sum to 1"),
    ({"split_fractions": [0.5, 0.5]}, "`split_fractions` must be three positive fractions that sum to 1"),
    ({"phantom_seed": -1}, "`phantom_seed` must be at least 0"),
    ({"split_seed": -1}, "`split_seed` must be at least 0"),
    ({"spacing_mm": [2.0, 2.0]}, r"`spacing_mm` must be three positive numbers \(z, y, x\). Found \[2.0, 2.0\]"),
    ({"spacing_mm": [2.0, 2.0, 0.0]}, "`spacing_mm` must be three positive numbers"),
    ({"shape": [64, 64]}, "`shape` must be three counts of at least"),
    ({"shape": [64, 64, 4]}, "`shape` must be three counts of at least"),
    ({"window_hu": [400, -1000]}, "`window_hu` must be two numbers, low before high"),
    ({"tasks": ["copd", "copd"], "weights": [1, 1]}, "`tasks` must be a list of different names"),
    ({"tasks": [], "weights": []}, "`tasks` must be a list of different names"),
    ({"weights": [3, 3]}, r"`weights` must be one weight per task, 5 in all. Found \[3.0, 3.0\]"),
    ({"tasks": ["lung_cancer"]}, "`weights` must be one weight per task, 1 in all"),
    ({"weights": [3, -1, 1, 1, 1]}, "`weights` must be at least 0, and not all 0"),
    ({"weights": [0, 0, 0, 0, 0]}, "`weights` must be at least 0, and not all 0"),
    ({"pflp_factor": 1.1}, r"`pflp_factor` must be inside \[0, 1\]. Found 1.1"),
    ({"pflp_period": 0}, "`pflp_period` must be at least 1. Found 0"),
    ({"pflp_unit": "batch"}, "`pflp_unit` must be step or epoch. Found 'batch'"),
    ({"pflp_order": ["lung_cancer", "tuberculosis"]}, r"`pflp_order` must be names from .*Found .*tuberculosis"),
    ({"itw_start": 1.0}, r"`itw_start` must be inside \[0, 1\). Found 1.0"),
    ({"itw_start": -0.6}, r"`itw_start` must be inside \[0, 1\). Found -0.6"),
    ({"itw_start": 60}, r"`itw_start` must be inside \[0, 1\). Found 60"),
    ({"itw_factor": -0.01}, r"`itw_factor` must be inside \[0, 1\]"),
    ({"width": 0}, "`width` must be a positive multiple"),
    ({"epochs": 0}, "`epochs` must be at least 1"),
    ({"batch_size": 1}, "`batch_size` must be at least 2"),
    ({"learning_rate": 0}, "`learning_rate` must be positive"),
    ({"weight_decay": -0.1}, "`weight_decay` must be at least 0"),
    ({"warmup": 1}, r"`warmup` must be inside \[0, 1\)"),
    ({"class_balance": "yes"}, "`class_balance` must be positives or none"),
    ({"selection": "best"}, "`selection` must be best_auc or last"),
    ({"precision": "fp16"}, "`precision` must be auto, bf16 or fp32"),
    ({"threads": 0}, "`threads` must be at least 1"),
    ({"checkpoint_minutes": -1}, "`checkpoint_minutes` must be at least 0"),
]
WRONG_TYPES = [
    ({"epochs": "3"}, r"`epochs` must be a whole number. Found '3' \(str\)"),
    ({"epochs": 3.0}, r"`epochs` must be a whole number. Found 3.0 \(float\)"),
    ({"epochs": True}, r"`epochs` must be a whole number. Found True \(bool\)"),
    ({"itw": 1}, r"`itw` must be true or false. Found 1 \(int\)"),
    ({"itw_start": True}, r"`itw_start` must be a finite number. Found True \(bool\)"),
    ({"learning_rate": math.nan}, "`learning_rate` must be a finite number. Found nan"),
    ({"learning_rate": math.inf}, "`learning_rate` must be a finite number. Found inf"),
    ({"study": 3}, r"`study` must be text. Found 3 \(int\)"),
    ({"cohort": None}, r"`cohort` must be text. Found None"),
    ({"tasks": "lung_cancer"}, r"`tasks` must be a list, each item text. Found 'lung_cancer' \(str\)"),
    ({"weights": 3}, r"`weights` must be a list, each item a finite number. Found 3 \(int\)"),
    ({"weights": [3, 3, 3, 3, "3"]}, "`weights` must be a list, each item a finite number"),
    ({"weights": [3, 3, 3, 3, True]}, "`weights` must be a list, each item a finite number"),
    ({"shape": [64, 64, 64.0]}, "`shape` must be a list, each item a whole number"),
]


def test_defaults_obey_every_rule():
    assert RunConfig.from_mapping({}) == RunConfig()
    assert tuple(RunConfig().tasks) == TASKS


@pytest.mark.parametrize(("parameters", "message"), BAD_VALUES)
def test_value_outside_its_range_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_mapping(parameters)


@pytest.mark.parametrize(("parameters", "message"), WRONG_TYPES)
def test_wrong_type_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_mapping(parameters)


def test_every_rule_has_a_bad_value():
    any_value = {
        "results_dir",
        "cache_dir",
        "cohort",
        "allow_outside",
        "pflp",
        "pflp_keep_mean",
        "pflp_shuffle",
        "itw",
        "itw_restart",
        "start_weights",
        "augment",
    }

    covered = {name for row, _ in BAD_VALUES for name in row} | any_value

    assert covered == {field.name for field in dataclasses.fields(RunConfig)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("epoch", "must be a field of RunConfig. Found `epoch`. Did you mean `epochs`?"),
        ("pflp_periode", r"Found `pflp_periode`. Did you mean `pflp_period`\?"),
        ("ITW_START", "Found `ITW_START`."),
        ("momentum", r"Found `momentum`\.$"),
        (False, "Found `False`."),
    ],
)
def test_unknown_parameter_is_refused_with_the_nearest_name(name, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_mapping({name: 1})


def test_whole_numbers_serve_as_floats_and_tuples_as_lists():
    config = RunConfig.from_mapping({"itw_factor": 0, "weights": (3, 1, 1, 1, 1)})

    assert isinstance(config.itw_factor, float)
    assert config.weights == [3.0, 1.0, 1.0, 1.0, 1.0]


def test_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError, match="epochs"):
        RunConfig().epochs = 9


def test_to_dict_brings_back_the_same_config():
    config = RunConfig.from_mapping({"experiment": "MTL2", "weights": [3, 1, 1, 1, 1], "itw": False})

    assert RunConfig.from_mapping(config.to_dict()) == config


def test_later_params_files_win(tmp_path):
    (tmp_path / "study.yaml").write_text("epochs: 3\nseed: 1\n", encoding="utf-8")
    (tmp_path / "experiment.yaml").write_text("epochs: 5\n", encoding="utf-8")

    assert read_params(tmp_path / "study.yaml", tmp_path / "experiment.yaml") == {"epochs": 5, "seed": 1}


def test_empty_params_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# only a comment\n", encoding="utf-8")

    assert read_params(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize("content", ["- epochs\n", "training:\n  epochs: 3\n", "epochs\n"])
def test_params_file_that_is_not_flat_is_refused_by_name(tmp_path, content):
    (tmp_path / "nested.yaml").write_text(content, encoding="utf-8")

    with pytest.raises(ValueError, match=r"must be a flat mapping .* Found .*nested\.yaml"):
        read_params(tmp_path / "nested.yaml")


def test_missing_params_file_is_named_with_its_full_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FileNotFoundError, match=str(tmp_path / "absent.yaml")):
        read_params("absent.yaml")


def test_number_that_yaml_reads_as_text_is_explained():
    parameters = yaml.safe_load("learning_rate: 2e-3")

    with pytest.raises(ValueError, match=r"Found '2e-3' \(str\). YAML reads 2e-3 as text and 2.0e-3 as a number"):
        RunConfig.from_mapping(parameters)
