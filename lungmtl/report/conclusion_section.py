"""Conclusion: what the confirmatory studies and the map say, in four sentences that follow from their tables."""

from collections.abc import Mapping

import pandas as pd

from lungmtl.experiments import AXES
from lungmtl.report.answer_section import is_open, shown_rows
from lungmtl.report.words import ends, number, render


def conclusion(studies: Mapping[float, Mapping[str, pd.DataFrame]], contrasts: pd.DataFrame) -> str:
    """What was compared, to which budget, what came out, and where on the map PFLP or ITW is worth using.

    Worth using: the interval lies above 0 against the single task and against the matched static weights.

    Args:
        studies: By relatedness the tables `confirm` and `learning` of a study.
        contrasts: The table of the map, "" as `arm` of its grid.
    """
    grid = contrasts[contrasts["arm"] == ""]
    n_seeds = int(grid["n_seeds"].max())
    low, high = (
        grid.pivot_table(index=list(AXES), columns=["experiment", "reference"], values=end) for end in ("low", "high")
    )
    pairs = {"focus": ("MTL2", "MTL.aux1"), "transfer": ("ITW2", "tuned static")}
    cells = {}
    for name, (experiment, rival) in pairs.items():
        cells[name] = _at(low, (low[experiment, "STL"] > 0) & (low[experiment, rival] > 0))
        cells[f"{name}_worse"] = _at(high, high[experiment, "STL"] < 0)
    grid = low.index.to_frame(index=False)
    places = {name: _place(found, grid) for name, found in cells.items()}
    told = [_told(relatedness, tables) for relatedness, tables in sorted(studies.items())]
    return render("conclusion.md.j2", studies=told, n_seeds=n_seeds, **places, number=number)


def _at(table: pd.DataFrame, holds: pd.Series) -> pd.DataFrame:
    return table.index[holds].to_frame(index=False)


def _place(cells: pd.DataFrame, grid: pd.DataFrame) -> str:
    """How many cells of the grid, and where they lie on the axes that they do not span."""
    forms = {
        "relatedness": ("relatedness {}", "{:.2g}"),
        "n_scans": ("{} scans", "{:,}"),
        "n_steps": ("{} steps", "{:,}"),
    }
    spans = {axis: (cells[axis].min(), cells[axis].max()) for axis in forms if len(cells)}
    within = [axis for axis, span in spans.items() if span != (grid[axis].min(), grid[axis].max())]
    where = ", ".join(forms[axis][0].format(ends(cells[axis], forms[axis][1])) for axis in within)
    return f"{number(len(cells))} of {number(len(grid))} cells" + (f" ({where})" if where else "")


def _told(relatedness: float, tables: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    rows, learning = tables["confirm"].dropna(subset="p_holm"), tables["learning"]
    rows = rows.assign(is_open=rows["verdict"].map(is_open))
    return {
        "relatedness": relatedness,
        "rows": shown_rows(rows),
        "n_open": int(rows["is_open"].sum()),
        "n": int(rows["n"].max()),
        "n_sets": int(rows["n_seeds"].max()),
        "n_experiments": len(learning),
        "n_epochs": int(learning["n_epochs"].max()),
        "rising": int((learning["is_flat"] == "no").sum()),
    }
