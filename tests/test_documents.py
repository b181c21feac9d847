"""Every command and snippet of the documents, taken from their text: run at small size, or read where it cannot run."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from chests import chest, save
from standin import clean_environment
from test_own_cohort import TINY
from test_pages import SEEN, assert_accessible, assert_whole

from lungmtl import cli
from lungmtl.experiments import TASKS
from lungmtl.study import RunConfig

PROJECT = Path(__file__).resolve().parents[1]
WRITTEN = ["README.md", "FAQ.md", "params/README.md", "lungmtl/policies/ADDING.md", "lungmtl/sources/README.md"]
WRITTEN += ["benchmarks/README.md", *sorted(f"params/{path.name}" for path in PROJECT.glob("params/*.yaml"))]
SMALL = {  # what a line of a block says -> what runs in its place; all else runs as it is written
    r"make study PARAMS=params/own.yaml": "make study PARAMS=own.yaml SNAKEMAKE_OPTIONS='--until experiment'",
    r"make study": "make study SNAKEMAKE_OPTIONS='--dry-run --quiet all'",  # test_workflow runs the smoke study
    r"params/own.yaml": "own.yaml",  # with a coarse grid, one experiment and one epoch
    r"-f params/table2/ITW3.yaml": r"\g<0> -f one.yaml",  # on the same few scans
}
READ = {  # how lines of blocks begin that cannot run here, and why; as in prose, what they name is checked
    "make test": "it is what runs this",
    "make lab": "a server, which does not end",
    "lungmtl nlst": "its tables are given on application",
    "s5cmd": "fetches scans of NLST",
}
PROGRAMS = "make|lungmtl|papermill|python|python3|pip|conda|source|git|jupyter|snakemake|s5cmd"
N_SCANS = 18
OPENS = re.compile(r"^\| `[^`]*`", re.MULTILINE)  # what opens a row of a table is a message or a name


def blocks(language: str) -> list[tuple[str, str]]:
    """Document and text of every fenced block in a language; "" = commands."""
    pattern = rf"^```{language}\n(.*?)^```"
    found = [(name, re.findall(pattern, TEXTS[name], re.MULTILINE | re.DOTALL)) for name in WRITTEN]
    return [(name, block) for name, texts in found for block in texts]


def in_blocks() -> list[str]:
    """Commands of the documents' blocks, in order, without comments."""
    lines = [line for _, block in blocks("") for line in block.replace("\\\n", " ").splitlines()]
    return list(dict.fromkeys(line for line in (re.sub(r"\s+#.*", "", line).strip() for line in lines) if line))


def in_prose(text: str) -> list[str]:
    """Code in prose that begins with a program's name and has a further word; the `Command:` of a params file."""
    prose = OPENS.sub("", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [
        *(code for code in re.findall(r"`([^`\n]+)`", prose) if re.match(rf"({PROGRAMS}) ", code)),
        *re.findall(r"^# Command: (.*)", text, re.MULTILINE),
    ]


TEXTS = {name: (PROJECT / name).read_text(encoding="utf-8") for name in WRITTEN}
LINES = in_blocks()
RUN = [line for line in LINES if not line.startswith(tuple(READ))]
SAID = list(dict.fromkeys([*LINES, *(command for text in TEXTS.values() for command in in_prose(text))]))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What git would clone, but for results; an environment that is set up; a cohort of the user's own."""
    folder = tmp_path_factory.mktemp("user") / "lungmtl"
    leave = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("lungmtl", "notebooks", "params", "workflow", "benchmarks", "tests/data"):
        shutil.copytree(PROJECT / name, folder / name, ignore=leave)
    for path in PROJECT.glob("*"):
        if path.is_file():
            shutil.copy(path, folder)
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith("installed-"):
            (folder / ".venv" / path.name).symlink_to(path)
    stamp = make(folder, "-pn").stdout
    (folder / re.search(r"^STAMP := (.*)", stamp, re.MULTILINE)[1]).touch()
    write_cohort(folder)
    return folder


def make(folder: Path, *words: str) -> subprocess.CompletedProcess:
    active = {"VIRTUAL_ENV": str(folder / ".venv")}
    how = {"cwd": folder, "env": clean_environment() | active, "capture_output": True, "encoding": "utf-8"}
    return subprocess.run(["make", *words], **how, check=False)


def write_cohort(folder: Path) -> None:
    """A cohort.csv of small chests, and settings for it: own.yaml changed as it says, and for a single run."""
    index = pd.Series(range(N_SCANS))
    for number in index:
        save(chest().hu + number + 1, folder / f"s{number}.nii.gz")
    table = pd.DataFrame({"scan": "s" + index.astype(str), "patient": "p" + index.astype(str)})
    table["image"] = table["scan"] + ".nii.gz"
    for number, task in enumerate(TASKS):
        table[task] = index // (1 + number % 2) % 2
    table["split"] = ["train"] * 8 + ["validation"] * 4 + ["test"] * 6
    table.to_csv(folder / "cohort.csv", index=False)
    own = yaml.safe_load((folder / "params" / "own.yaml").read_text(encoding="utf-8"))
    small = {
        key: value for key, value in TINY.items() if key in ("spacing_mm", "shape", "width", "epochs", "precision")
    }
    own |= small | {"cohort": "../cohort.csv", "experiments": ["ITW3"], "seeds": [0], "pflp_period": 1}
    (folder / "own.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    one = {key: value for key, value in own.items() if key not in ("study", "experiments", "seeds", "tasks")}
    (folder / "one.yaml").write_text(yaml.safe_dump(one), encoding="utf-8")


def in_a_clean_shell(folder: Path, script: str) -> subprocess.CompletedProcess:
    """Run a script as a user does who has just opened a shell in the clone, and begun as the README says."""
    begin = "" if script.startswith(("make", "source")) else "source .venv/bin/activate\n"
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}  # this clone, wherever the package is installed from
    command = ["bash", "-euc", begin + script]
    how = {"cwd": folder, "env": clean_environment() | threads, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, **how, encoding="utf-8", check=False, timeout=900)


def test_every_block_is_of_commands_or_of_python_or_of_settings():
    languages = [
        language for text in TEXTS.values() for language in re.findall(r"^```(.*)\n(?:[^`]|`(?!``))*^```", text, re.M)
    ]

    assert len(languages) == len(blocks("")) + len(blocks("python")) + len(blocks("yaml"))
    assert [begin for begin in READ if not any(line.startswith(begin) for line in LINES)] == []


@pytest.mark.parametrize("command", RUN, ids=str)
def test_command_runs_as_it_is_written(clone, command):
    for written, small in SMALL.items():
        if re.search(written, command):
            command = re.sub(written, small, command)
            break
    done = in_a_clean_shell(clone, command)

    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout


def test_what_the_commands_promise_is_there(clone):
    for name in ("cohort-check/report.html", "results/own/runs/ITW3-s0/record.json", "out.ipynb"):
        assert (clone / name).is_file()


def test_the_page_of_check_is_whole_and_accessible(clone, browser):
    page = clone / "cohort-check" / "report.html"
    for width_px, media in SEEN:
        assert_whole(browser, page, width_px=width_px, media=media)
    assert_accessible(browser, page, width_px=SEEN[1][0], scheme="light")


@pytest.mark.parametrize(("name", "block"), blocks("yaml"))
def test_settings_of_a_block_are_valid(name, block):
    RunConfig(**yaml.safe_load(block))


@pytest.mark.parametrize(("name", "block"), blocks("python"))
def test_python_block_runs_as_it_is_written(clone, name, block):
    done = subprocess.run([sys.executable, "-c", block], cwd=clone, capture_output=True, encoding="utf-8", check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", SAID, ids=str)
def test_command_has_words_options_variables_and_files_that_exist(clone, command):
    subprocess.run(["bash", "-nc", command], check=True)
    for part in command.split(" && "):
        program, *words = shlex.split(part)
        CHECKS.get(program, check_files)(words, clone)
        check_files(words, clone)


def check_files(words: list[str], folder: Path) -> None:
    """Files of the project that words name are there; others are the user's."""
    for word in words:
        named = word.partition("=")[2] or word
        if "..." not in named and named.endswith((".yaml", ".yml", ".ipynb")) and named != "out.ipynb":
            assert (folder / named).is_file(), named


def check_lungmtl(words: list[str], folder: Path) -> None:
    assert words[0] in cli.COMMANDS, words[0]
    module = importlib.import_module(f"lungmtl.{cli.COMMANDS[words[0]][0]}")
    parser, parts = cli._parsers()
    getattr(module, f"add_{words[0]}")(parts[words[0]])
    options = {word for word in words if word.startswith("--")}
    assert options <= set(parts[words[0]]._option_string_actions)
    if len(words) > 1 and not {"...", "--help"} & set(words):
        parser.parse_args(words)  # ends with a message where something is missing


def check_make(words: list[str], folder: Path) -> None:
    text = (folder / "Makefile").read_text(encoding="utf-8")
    for name in (word.partition("=")[0] for word in words if "=" in word):
        assert re.search(rf"^{name} *[?:]?=", text, re.MULTILINE), name
    done = make(folder, "-n", *words)
    assert done.returncode == 0, done.stderr


def check_python(words: list[str], folder: Path) -> None:
    assert words[0] == "-m"
    if words[1] == "lungmtl":
        return check_lungmtl(words[2:], folder)
    module, argv = importlib.import_module(words[1]), sys.argv
    sys.argv = words[1:]
    try:
        module._options()
    finally:
        sys.argv = argv


def check_pip(words: list[str], folder: Path) -> None:
    extras = re.findall(r"^(\w+) = \[", (folder / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert [extra for word in words for extra in re.findall(r"\[(\w+)\]", word) if extra not in extras] == []


CHECKS = {"lungmtl": check_lungmtl, "make": check_make, "python": check_python, "pip": check_pip}
