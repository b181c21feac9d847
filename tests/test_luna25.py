"""LUNA25: labels of nodules become labels of scans, findings of the round join them, series come from the index."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_nlst import abnormalities, described, index, index_row, participants, placed

from lungmtl import cli
from lungmtl.data.cohort import read_cohort
from lungmtl.data.splits import check_splits
from lungmtl.sources.luna25 import read_luna25
from lungmtl.sources.nlst_findings import AUXILIARIES, FINDINGS, findings, selected
from lungmtl.sources.nlst_series import choose_series, read_index
from lungmtl.sources.nlst_tables import read_abnormalities, read_participants
from lungmtl.study.plan import plan_runs

NODULE = {  # a row as LUNA25 publishes it
    **{"PatientID": "100001", "SeriesInstanceUID": "1.2.1", "StudyDate": "19990102", "CoordX": "-57.08"},
    **{"CoordY": "49.39", "CoordZ": "-138.89", "LesionID": "1", "AnnotationID": "100001_1_19990102"},
    **{"NoduleID": "100001_1", "label": "0", "Age_at_StudyDate": "61", "Gender": "Female"},
}
DATES = ("19990102", "20000102", "20010102")
HAS_INDEX = all(importlib.util.find_spec(name) for name in ("idc_index_data", "duckdb"))
N_PATIENTS = 60


def nodules(folder: Path, *changes: dict[str, str]) -> Path:
    """A label table with a row per change of NODULE, each its own annotation."""
    rows = [NODULE | {"AnnotationID": f"a{i}"} | change for i, change in enumerate(changes)]
    path = folder / "LUNA25_Public_Training_Development_Data.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def stand_in(folder: Path) -> Path:
    """An index of two rounds of so many patients."""
    text = [described(round=str(screen)) for screen in range(2)]
    rows = [index_row(str(100001 + i), f"1.2.{i}.{r}", text[r]) for i in range(N_PATIENTS) for r in range(2)]
    return index(folder, *rows)


def tables(folder: Path, path: Path | None) -> tuple[Path, list[str], pd.DataFrame]:
    """Write all tables on two rounds of patients of an index: folder, option that names the index, scans."""
    series = read_index(path)
    chosen = pd.concat(choose_series(series, screen=screen) for screen in range(2))
    chosen = chosen[chosen["excluded"] == ""]
    chosen = chosen[chosen["patient"].duplicated(keep=False)].sort_values(["patient", "round"]).head(2 * N_PATIENTS)
    scans = chosen.reset_index(drop=True)
    changes = [
        {
            "PatientID": scan.patient,
            "SeriesInstanceUID": scan.series,
            "StudyDate": DATES[int(scan.round)],
            "label": label,
        }
        for place, scan in enumerate(scans.itertuples())
        for label in ("0", "1" if place % 8 in (0, 1) else "0")  # every fourth patient, in both rounds
    ]
    nodules(folder, *changes)
    found = [(s.patient, s.round, "51") for s in scans.itertuples()]
    found += [
        (s.patient, s.round, str(code)) for k, code in enumerate(FINDINGS.values()) for s in scans[k::3].itertuples()
    ]
    abnormalities(folder, *found)
    return folder, ["--index", str(path)] if path else [], scans


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> tuple[Path, list[str], pd.DataFrame]:
    folder = tmp_path_factory.mktemp("luna25")
    return tables(folder, stand_in(folder))


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, list[str], pd.DataFrame]:
    if not HAS_INDEX:
        pytest.skip("needs the optional extra `nlst`")
    return tables(tmp_path_factory.mktemp("published"), None)


def command(folder: Path, *options: str) -> list[str]:
    table = folder / "LUNA25_Public_Training_Development_Data.csv"
    given = ["--labels", "luna25", str(table), "--abnormalities", str(folder / "ctab.csv")]
    return ["nlst", *given, "--out", str(folder / "cohort.csv"), *options]


@pytest.mark.parametrize("name", ["source", "published"])
def test_the_command_joins_labels_findings_and_series(request, name):
    folder, place, scans = request.getfixturevalue(name)
    first = scans.iloc[0]
    placed(folder, {first["series"]: int(first["n_slices"])})

    status = cli.main(command(folder, *place, "--manifest", str(folder / "missing.txt")))

    tasks = ["lung_cancer", *AUXILIARIES]
    frame = read_cohort(folder / "cohort.csv", tasks=tasks)
    assert status == 0
    assert frame["series"].tolist() == scans["series"].tolist()
    assert frame["scan"].tolist() == [f"{s.patient}-T{s.round}" for s in scans.itertuples()]
    assert frame["lung_cancer"].tolist() == [float(place % 8 in (0, 1)) for place in range(len(scans))]
    assert frame["emphysema"].tolist() == [float(place % 3 == 0) for place in range(len(scans))]
    assert frame["kernel"].tolist() == scans["kernel"].tolist()
    assert frame["thickness_mm"].astype(float).tolist() == scans["thickness_mm"].tolist()
    assert set(frame["manufacturer"]) <= {"GE", "Siemens", "Philips", "Toshiba"}
    assert (frame["sex"] + frame["age_years"]).unique().tolist() == ["Female61.0"]
    assert frame["excluded"].tolist()[0] == ""
    assert frame["excluded"].str.startswith("download: 0 of ").sum() == len(scans) - 1
    lines = (folder / "missing.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert [line.split()[1].strip("'") for line in lines] == scans["url"].tolist()[1:]


def test_the_split_is_by_patient_seeded_and_has_both_classes(source):
    folder, place, _ = source

    splits = []
    for seed in ("0", "0", "1"):
        cli.main(command(folder, *place, "--seed", seed))
        splits.append(pd.read_csv(folder / "cohort.csv", dtype=str)["split"])
    frame = read_cohort(folder / "cohort.csv", tasks=["lung_cancer"])

    check_splits(frame.assign(excluded=""), tasks=["lung_cancer"], fractions=(), seed=0, batch_size=1)
    assert frame.groupby("patient")["split"].nunique().max() == 1
    pd.testing.assert_series_equal(splits[0], splits[1])
    assert not splits[0].equals(splits[2])


def test_the_side_file_says_how_and_names_no_patient(source):
    folder, place, scans = source
    cli.main(command(folder, *place, "--auxiliaries", "emphysema", "61"))

    side = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    table = folder / "LUNA25_Public_Training_Development_Data.csv"
    assert side["options"] == {
        "auxiliaries": ["emphysema", "61"],
        "one_per_patient": False,
        "patients": None,
        "seed": 0,
        "split": True,
    }
    assert side["files"]["labels"]["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert side["findings"] == {
        "emphysema": "sct_ab_desc 59 of that round",
        "fibrosis": "sct_ab_desc 61 of that round",
    }
    assert side["labels"]["lung_cancer"] == {"negative": 90, "positive": 30}
    assert side["n_patients"] == N_PATIENTS
    assert scans["patient"][0] not in json.dumps(side)
    assert str(folder) not in json.dumps(side)


def test_one_scan_per_patient_is_the_last_and_a_draw_is_of_patients(source):
    folder, place, _ = source

    cli.main(command(folder, *place, "--one-per-patient", "--patients", "40"))

    frame = pd.read_csv(folder / "cohort.csv", dtype=str)
    side = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    kept = frame[frame["excluded"] != "not the patient's last scan"]
    assert kept["round"].unique().tolist() == ["1"]
    assert len(kept) == kept["patient"].nunique() == side["n_patients"] == 40
    assert (kept["lung_cancer"] == "1").sum() == 15


def test_all_scans_of_drawn_patients_are_kept(source):
    folder, place, _ = source

    cli.main(command(folder, *place, "--patients", "40", "--auxiliaries"))

    frame = read_cohort(folder / "cohort.csv", tasks=["lung_cancer"])
    assert frame["patient"].nunique() == 40
    assert len(frame) == 80


def test_a_series_that_the_index_does_not_confirm_is_excluded_with_the_reason(tmp_path):
    index(tmp_path, *[index_row(str(100001 + i), f"1.2.{i}") for i in range(30)])
    changes = [
        {"PatientID": str(100001 + i), "SeriesInstanceUID": f"1.2.{i}", "label": str(int(i < 9))} for i in range(30)
    ]
    changes[27]["SeriesInstanceUID"] = "1.9"
    changes[28]["PatientID"] = "199999"
    changes[29]["StudyDate"] = "20010102"
    nodules(tmp_path, *changes)
    abnormalities(tmp_path, ("100001", "0", "59"))

    status = cli.main(command(tmp_path, "--index", str(tmp_path / "index.csv"), "--auxiliaries"))

    frame = pd.read_csv(tmp_path / "cohort.csv", dtype=str).set_index("series")
    assert status == 0
    assert frame.loc[["1.9", "1.2.28", "1.2.29"], "excluded"].tolist() == [
        "no series: not in the index",
        "no series: the index has it under another patient",
        "no series: the index has it in another round",
    ]
    assert frame.loc["1.9", ["split", "kernel"]].isna().all()


# ---------------------------------------------------------------- the label table


def test_a_scan_is_positive_if_one_nodule_is_malignant(tmp_path):
    other = {"SeriesInstanceUID": "1.2.2", "StudyDate": "20000102"}
    path = nodules(
        tmp_path, {}, {"label": "1"}, {"Age_at_StudyDate": "63"}, other, other | {"Gender": "Male"}, {"label": "0"}
    )

    found = read_luna25(path)

    assert found["lung_cancer"].tolist() == [1, 0]
    assert found["round"].tolist() == ["0", "1"]
    assert found["n_nodules"].tolist() == [4, 2]
    assert found["age_years"].tolist() == [61, 61]
    assert found["sex"].tolist() == ["Female", ""]


def test_the_order_of_rows_changes_nothing(tmp_path):
    changes = [{"SeriesInstanceUID": f"1.{i % 3}", "label": str(int(i == 4))} for i in range(6)]

    one, other = (read_luna25(nodules(tmp_path, *order)) for order in (changes, changes[::-1]))

    pd.testing.assert_frame_equal(one, other)


def test_an_annotation_that_is_written_twice_counts_once(tmp_path, caplog):
    found = read_luna25(nodules(tmp_path, {"AnnotationID": "x"}, {"AnnotationID": "x"}, {}))

    assert found["n_nodules"].tolist() == [2]
    assert "that is there already: 1 row" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "2"}, r"`label` must be 0 or 1. Found '2' in row 3 of .* \(1 row\)"),
        ({"label": ""}, r"`label` must be 0 or 1. Found '' in row 3 of"),
        (
            {"StudyDate": "20020102"},
            r"`studydate` must be 19990102, .* for the three rounds. Found '20020102' in row 3",
        ),
        ({"SeriesInstanceUID": ""}, "`seriesinstanceuid` must be a series UID. Found '' in row 3"),
        ({"PatientID": "Doe^Jane"}, "`patientid` must be NLST's participant number. Found another value in row 3"),
        ({"PatientID": "100002"}, "A series must have one `patientid`. Found 2 in row 2"),
        ({"StudyDate": "20000102"}, "A series must have one `studydate`. Found 2 in row 2"),
        ({"Age_at_StudyDate": "old"}, "`age_at_studydate` must be a number, .* Found 'old' in row 3"),
    ],
)
def test_a_cell_that_cannot_be_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as error:
        read_luna25(nodules(tmp_path, {}, change))
    assert "Doe" not in str(error.value)


@pytest.mark.parametrize("name", ["PatientID", "SeriesInstanceUID", "StudyDate", "label"])
def test_a_table_without_a_needed_column_is_refused(tmp_path, name):
    path = nodules(tmp_path, {})
    pd.read_csv(path, dtype=str).drop(columns=name).to_csv(path, index=False)

    with pytest.raises(ValueError, match=rf"one column `{name.lower()}`. Found 0 in"):
        read_luna25(path)


# ---------------------------------------------------------------- findings


def test_a_finding_is_1_if_listed_0_if_the_round_was_read_and_else_not_known(tmp_path):
    ctab = abnormalities(
        tmp_path, ("1", "0", "59"), ("1", "0", "51"), ("2", "0", "51"), ("2", "1", "59"), ("1", "2", "61")
    )
    scans = pd.DataFrame({"patient": ["1", "2", "3", "1", "2", "1"], "round": ["0", "0", "0", "1", "1", "2"]})

    found = findings(scans, read_abnormalities(ctab), codes={"emphysema": 59, "fibrosis": 61})

    np.testing.assert_array_equal(found["emphysema"], [1, 0, np.nan, np.nan, 1, 0])
    np.testing.assert_array_equal(found["fibrosis"], [0, 0, np.nan, np.nan, 0, 1])


def test_a_participant_table_tells_of_reads_without_any_finding(tmp_path):
    people = participants(tmp_path, {"pid": "3", "scr_res0": "2"}, {"pid": "4", "scr_res0": "10"})
    ctab = abnormalities(tmp_path, ("1", "0", "59"))
    scans = pd.DataFrame({"patient": ["3", "4"], "round": "0"})

    found = findings(scans, read_abnormalities(ctab), read_participants(people), codes={"emphysema": 59})

    np.testing.assert_array_equal(found["emphysema"], [0, np.nan])


def test_findings_are_selected_by_name_or_code():
    assert selected(["59", "pleura", "60"]) == {"emphysema": 59, "pleura": 55, "cardiovascular": 60}
    assert sorted(selected(FINDINGS).values()) == [54, 55, 56, 58, 59, 60, 61]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["51"], "must differ between scans. Found 51, a nodule of 4 mm or more"),
        (["emphisema"], r"must be of emphysema \(59\), .* Found emphisema. Close to it: emphysema."),
        (["70"], "Found 70"),
        (["59", "emphysema"], "must differ. Found 59, emphysema"),
    ],
)
def test_a_finding_that_is_no_auxiliary_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        selected(words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kernels", "STANDARD"], "`--labels luna25` says itself which series and label. Found `--kernels` with it"),
        (["--horizon-years", "2"], "Found `--horizon-years` with it"),
        (["--patients", "3"], "`--patients` must be"),
        (["--labels", "luna16", "x.csv"], "`--labels` must be luna25 and its table. Found luna16 x.csv"),
        (["--labels", "luna25", "none.csv"], "An official table must exist. Found none at"),
    ],
)
def test_bad_input_ends_with_status_2_and_a_sentence(source, caplog, options, message):
    folder, place, _ = source

    assert cli.main(command(folder, *place, *options)) == 2
    assert message in caplog.text


def test_auxiliaries_need_the_table_of_abnormalities(tmp_path, caplog):
    arguments = ["nlst", "--labels", "luna25", str(nodules(tmp_path, {})), "--out", str(tmp_path / "cohort.csv")]

    assert cli.main(arguments) == 2
    assert "`--abnormalities` must be given for the auxiliaries, or `--auxiliaries` without a word" in caplog.text


def test_labels_or_participants_must_be_given(tmp_path, caplog):
    assert cli.main(["nlst", "--out", str(tmp_path / "cohort.csv")]) == 2
    assert "`--participants TABLE` or `--labels luna25 CSV` must be given. Found neither." in caplog.text


def test_the_params_file_is_a_study_of_the_tables_tasks():
    runs = plan_runs(Path(__file__).parents[1] / "params" / "luna25.yaml")

    assert len(runs) == 30
    assert runs[3].tasks == ["lung_cancer", *AUXILIARIES]
