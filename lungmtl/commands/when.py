"""Command `when`: the map of when sharing helps, cell by cell, and its tables."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from lungmtl.commands.options import n_cores
from lungmtl.experiments import AXES
from lungmtl.files import PROJECT
from lungmtl.study import plan, read_params
from lungmtl.tables import write_csv
from lungmtl.when import cells_of, map_tables, run_map

SIDE = "side_"  # prefix of the keys of side arms


def add_when(parser: argparse.ArgumentParser) -> None:
    """Options of `when`."""
    parser.add_argument("params", type=Path, help="the map's params file, e.g. params/when.yaml")
    parser.add_argument("--results-dir", type=Path, default=PROJECT / "results", help="folder of all studies")
    parser.add_argument("--workers", type=int, default=n_cores(), help="worker processes, default %(default)s")


def when(options: argparse.Namespace) -> int:
    """Compute the missing cells of the map, then its tables."""
    values = read_params(options.params)
    folder = options.results_dir / values["study"]
    experiments = {name: plan.experiment_config({}, name, options.params).weighting for name in values["experiments"]}
    cells = [replace(cell, early=values.get("early", 0.0))
             for cell in cells_of({name: values[name] for name in AXES}, _arms(values))]  # fmt: skip
    place = {"n_seeds": values["n_seeds"], "folder": folder / "cells", "workers": options.workers}
    files = list(tqdm(run_map(cells, experiments, **place), total=len(cells), unit="cell", desc=values["study"]))
    results = pd.concat(map(pd.read_csv, sorted(files)), ignore_index=True).fillna({"arm": ""})
    for name, table in map_tables(results).items():
        write_csv(table, folder / "tables" / f"{name}.csv", float_format="%.6g")
    print(f"Tables: {folder / 'tables'}")
    return 0


def _arms(values: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(SIDE): value for name, value in values.items() if name.startswith(SIDE)}
