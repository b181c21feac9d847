"""The README's conclusion in four sentences, from the tables of the confirmatory studies and of the map.

Command: python -m benchmarks.conclusion [--results-dir results], once a study has its tables; it prints the paragraph
on those that have, and tests/test_readme.py asks that the README holds it.
"""

import argparse
from pathlib import Path

import pandas as pd

from lungmtl import report
from lungmtl.files import PROJECT
from lungmtl.study import read_params

STUDIES = ("confirm-unrelated", "confirm-related")


def main() -> None:
    """Print the paragraph."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results-dir", type=Path, default=PROJECT / "results")
    print(written(parser.parse_args().results_dir))


def written(results_dir: Path) -> str:
    """The paragraph from the tables below this folder."""
    studies = {read_params(PROJECT / "params" / f"{study}.yaml")["phantom_relatedness"]: {
        name: pd.read_csv(results_dir / study / "tables" / f"{name}.csv", keep_default_na=False, na_values=[""])
        for name in ("confirm", "learning")} for study in STUDIES if has_tables(results_dir / study)}  # fmt: skip
    contrasts = pd.read_csv(results_dir / "when" / "tables" / "contrasts.csv").fillna({"arm": ""})
    return report.conclusion(studies, contrasts)


def has_tables(study_dir: Path) -> bool:
    """Whether the study was run and compared."""
    return (study_dir / "tables" / "confirm.csv").is_file()


if __name__ == "__main__":
    main()
