"""Conclusion: what the confirmatory studies and the map say, in four sentences that follow from their tables."""

from collections.abc import Mapping

import pandas as pd

from lungmtl.experiments import AXES
from lungmtl.report.answer_section import number, shown_rows
from lungmtl.report.words import render


def conclusion(studies: Mapping[float, Mapping[str, pd.DataFrame]], contrasts: pd.DataFrame) -> str:
    """What was compared, to which budget, what came out, and where on the map PFLP or ITW is worth using.

    Worth using: the interval lies above 0 against the single task and against the matched static weights.

    Args:
        studies: By relatedness the tables `confirm` and `learning` of a study.
        contrasts: The table of the map, "" as `arm` of its grid.
    """
    grid = contrasts[contrasts["arm"] == ""]
    low, high = (
        grid.pivot_table(index=list(AXES), columns=["experiment", "reference"], values=end) for end in ("low", "high")
    )
    pairs = {"focus": ("MTL2", "MTL.aux1"), "transfer": ("ITW2", "tuned static")}
    cells = {}
    for name, (experiment, rival) in pairs.items():
        cells[name] = _at(low, (low[experiment, "STL"] > 0) & (low[experiment, rival] > 0))
        cells[f"{name}_worse"] = _at(high, high[experiment, "STL"] < 0)
    told = [_told(relatedness, tables) for relatedness, tables in sorted(studies.items())]
    n_seeds = int(grid["n_seeds"].max())
    return render("conclusion.md.j2", studies=told, n_cells=len(low), n_seeds=n_seeds, **cells, number=number)


def _at(table: pd.DataFrame, holds: pd.Series) -> pd.DataFrame:
    return table.index[holds].to_frame(index=False)


def _told(relatedness: float, tables: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    rows, learning = tables["confirm"].dropna(subset="p_holm"), tables["learning"]
    return {
        "relatedness": relatedness,
        "rows": shown_rows(rows),
        "n": int(rows["n"].max()),
        "n_sets": int(rows["n_seeds"].max()),
        "n_experiments": len(learning),
        "n_epochs": int(learning["n_epochs"].max()),
        "rising": int((learning["is_flat"] == "no").sum()),
    }
