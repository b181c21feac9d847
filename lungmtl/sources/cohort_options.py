"""Options of the command `cohort`: what they mean, checked before any table is read."""

import argparse
import functools
import re
from collections.abc import Sequence
from pathlib import Path

from lungmtl.data import ATTRIBUTES
from lungmtl.experiments import SPLITS
from lungmtl.sources.conversion import AXES_HERE, NUMPY_SUFFIX, check_axes
from lungmtl.sources.table import close_to, new_table

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    "": "",
}
OURS = ("scan", "patient", "split")  # names in a pattern that are not the tables' own
RESERVED = (*OURS, "image", "excluded", *ATTRIBUTES)
TASK_NAME = re.compile(r"[a-z][a-z0-9_]*")
FIELD = re.compile(r"\{([^{}]+)\}")  # of an image's pattern
EXAMPLES = r"""A column is given by its name, or by a pattern: * stands for any text, [*] for an asterisk. Several
columns, or rows of a scan, with one task are joined: 1 if one is 1, 0 if all are 0, else not known. The first task is
the central one.

RAD-ChestCT (Zenodo 6406114; volumes of 0.8 mm in HU, slices from head to feet; labels drawn from reports):
  lungmtl cohort --scan NoteAcc_DEID --metadata CT_Scan_Metadata_Complete_35747.csv --patient MRN_DEID \
    --table train=imgtrain_Abnormality_and_Location_Labels.csv \
    --table validation=imgvalid_Abnormality_and_Location_Labels.csv \
    --table test=imgtest_Abnormality_and_Location_Labels.csv \
    --map 'cancer*lung=lung_cancer' --map 'emphysema[*]*=emphysema' --map 'bronchitis[*]*=bronchitis' \
    --map 'air_trapping[*]*=air_trapping' --map 'bronchial_wall_thickening[*]*=wall_thickening' \
    --images npz --image '{scan}.npz' --spacing-mm 0.8 0.8 0.8 --axes IPL --out cohort.csv

CT-RATE (raw volumes, whose headers are blank; for train_fixed and valid_fixed leave out spacing, rescale and axes):
  lungmtl cohort --scan VolumeName --table train=train_predicted_labels.csv --table test=valid_predicted_labels.csv \
    --metadata train_metadata.csv --metadata validation_metadata.csv \
    --parts '(?P<study>(?P<patient>(?P<set>train|valid)_\d+)_[a-z]+)_\d+' --one-per study \
    --map 'Lung nodule=nodule' --map Emphysema=emphysema --map Bronchiectasis=bronchiectasis \
    --map 'Peribronchial thickening=wall_thickening' --map 'Mosaic attenuation pattern=mosaic' \
    --images dataset --image '{set}/{patient}/{study}/{scan}.nii.gz' \
    --spacing-mm ZSpacing XYSpacing XYSpacing --rescale RescaleSlope RescaleIntercept --axes SPL --out cohort.csv

DLCS24 (Zenodo 13799069; one row per nodule):
  lungmtl cohort --scan ct_nifti_file --patient patient-id --table DLCSD24_Annotations.csv --split benchmark_split \
    --map Malignant_lbl=lung_cancer --images images --image '{ct_nifti_file}' --out cohort.csv
"""


def add_cohort(parser: argparse.ArgumentParser) -> None:
    """Options of the command `cohort`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES.replace("%", "%%")
    add = parser.add_argument
    many = functools.partial(add, action="append")
    many("--table", required=True, metavar="[SPLIT=]FILE", help="csv of labels, of one split or of any; repeatable")
    many("--map", required=True, metavar="COLUMN=TASK", help="labels of a task; repeatable, the central task first")
    add("--scan", required=True, metavar="COLUMN", help="names the scan, in every table")
    many("--metadata", type=Path, default=[], metavar="FILE", help="csv with more columns of the scans; repeatable")
    add("--patient", metavar="COLUMN", help="names the patient")
    add("--parts", metavar="REGEX", help="named parts of a scan's name; one may be the patient")
    add("--split", metavar="COLUMN", help="train, validation or test; a scan without one is drawn by the study")
    add("--validation-share", type=float, default=0.1, help="of the training patients, if no split is validation")
    add("--one-per", metavar="NAME", help="keep the first scan of a patient, or of a part or column")
    add("--images", type=Path, required=True, help="folder of the images")
    add("--image", required=True, metavar="PATTERN", help="image in it: text, {scan}, {patient}, {PART}, {COLUMN}")
    size = "voxel size in mm, each a number or a column; overrides the file's geometry"
    add("--spacing-mm", nargs=3, metavar=("Z", "Y", "X"), help=size)
    add("--axes", default=AXES_HERE, help="with it: where an array's axes run, e.g. IPL feet, back, left; %(default)s")
    add("--rescale", nargs=2, metavar=("SLOPE", "INTERCEPT"), help="to HU, each a number or a column")
    add("--key", default="ct", help="array in .npz files, %(default)s")
    many("--keep", default=[], metavar="COLUMN=NAME", help=f"for subgroups, one of {', '.join(ATTRIBUTES)}")
    add("--blank", nargs="+", default=[], metavar="CELL", help="labels that mean not known, e.g. -1")
    add("--seed", type=int, default=0, help="seeds the draw of validation patients")
    add("--workers", type=int, default=1, help="processes that convert, %(default)s")
    add("--out", type=new_table, required=True, help="cohort.csv; a json file next to it says how it was made")


def needs_conversion(options: argparse.Namespace) -> bool:
    """Whether the volumes must be made complete before they can be read.

    Raises:
        ValueError: If a numpy archive comes without its voxel size, or axes are none.
    """
    is_numpy = options.image.lower().endswith(NUMPY_SUFFIX)
    if is_numpy and not options.spacing_mm:
        raise ValueError("`--spacing-mm Z Y X` must be given for .npz volumes, as numbers or columns. Found none.")
    if options.axes != AXES_HERE and not options.spacing_mm:
        raise ValueError("`--axes` must come with `--spacing-mm`. Found it alone.")
    check_axes(options.axes)
    return bool(options.spacing_mm or options.rescale)


def table_of(text: str) -> tuple[str, Path]:
    """Split (blank if none) and file of `--table`."""
    word, equals, rest = text.partition("=")
    if equals and word.lower() in SPLIT_WORDS:
        return SPLIT_WORDS[word.lower()], Path(rest)
    if equals and not Path(text).exists():
        raise ValueError(f"`--table` must be FILE, or one of {', '.join(SPLITS)} with =FILE. Found {text}.")
    return "", Path(text)


def _pairs(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs = [text.rpartition("=")[::2] for text in texts]
    for text, (column, name) in zip(texts, pairs, strict=True):
        if not (column and name):
            raise ValueError(f"`{option}` must be COLUMN=NAME. Found {text}.")
    return pairs


def tasks_of(texts: Sequence[str]) -> dict[str, list[str]]:
    """Tasks to the spellings of their columns, in the order in which they come."""
    tasks: dict[str, list[str]] = {}
    for column, task in _pairs(texts, "--map"):
        if not TASK_NAME.fullmatch(task) or task in RESERVED:
            must = f"A task must be small letters, digits and underscores, and none of {', '.join(RESERVED)}"
            raise ValueError(f"{must}. Found {task}.")
        tasks.setdefault(task, []).append(column)
    return tasks


def kept_of(texts: Sequence[str]) -> dict[str, str]:
    """Columns to their names in the cohort table."""
    kept = dict(_pairs(texts, "--keep"))
    for name in kept.values():
        if name not in ATTRIBUTES:
            near = close_to(name, ATTRIBUTES)
            raise ValueError(f"`--keep` must name one of {', '.join(ATTRIBUTES)}. Found {name}.{near}")
    return kept


def other_columns(options: argparse.Namespace, kept: Sequence[str]) -> list[str]:
    """Columns besides labels that the options name."""
    own = {*OURS, *(parts_of(options.parts).groupindex if options.parts else ())}
    places = [*FIELD.findall(options.image), *filter(None, [options.one_per])]
    sizes = [cell for cell in [*(options.spacing_mm or ()), *(options.rescale or ())] if not is_number(cell)]
    named = [*filter(None, (options.patient, options.split)), *sizes, *kept]
    return list(dict.fromkeys([*named, *(name for name in places if name not in own)]))


def is_number(text: str) -> bool:
    """Whether an option is a number, not a column's name."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def parts_of(text: str) -> re.Pattern[str]:
    """The expression of `--parts`."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"`--parts` must be a regular expression. Found {text}: {error}") from error
    if len(pattern.groupindex) < max(1, pattern.groups):
        raise ValueError(f"`--parts` must have named parts alone, as (?P<patient>...). Found {text}.")
    return pattern
