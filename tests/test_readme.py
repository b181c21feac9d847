"""The README's numbers are those of the committed tables, and what it names exists."""

import re
from pathlib import Path

import pandas as pd
import pytest

from lungmtl.comparison import printed

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
TABLES = PROJECT / "results" / "phantom-full" / "tables"


def test_the_result_table_is_that_of_the_reference_study():
    summary = printed.summary(pd.read_csv(TABLES / "auc.csv"), pd.read_csv(TABLES / "comparisons.csv"))
    assert summary in README


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_a_linked_file_exists(link):
    assert (PROJECT / link).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z]+)", README))))
def test_a_named_make_target_exists(target):
    assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
