"""How a scan was made, from its DICOM headers: a closed list of technical fields, which name nobody.

Sources: DICOM PS3.3, sections C.8.2.1 (CT) and C.7.6.4 (contrast).
"""

import math
import re

from lungmtl.data.headers import Header, text, value_of
from lungmtl.data.volume import Technique
from lungmtl.words import OTHER

# a family in letters and two figures (B30f, Br40d 3, FC51), a letter or two of Philips', figures alone, GE's words
KERNEL = re.compile(r"[A-Z]{1,2}\d{2}[A-Z]?( \d)?|[A-FL]|[EUY][A-D]|\d{1,2}")
WORDS = ("STANDARD", "SOFT", "LUNG", "BONE", "BONEPLUS", "DETAIL", "EDGE", "CHST", "CHEST", "ULTRA", "BODY", "SHARP")
NO_CONTRAST = ("", "NO", "NONE", "N", "NO CONTRAST", "WITHOUT", "NON CONTRAST")


def technique_of(header: Header) -> Technique:
    """Tube voltage, kernel, nominal slice thickness and contrast agent of a slice, NaN or blank where not said."""
    agent, is_said = text(header, "ContrastBolusAgent"), value_of(header, "ContrastBolusAgent") is not None
    return Technique(
        kvp_kv=_number(header, "KVP"),
        kernel=clean_kernel(text(header, "ConvolutionKernel")),
        thickness_mm=_number(header, "SliceThickness"),
        contrast=("no" if agent in NO_CONTRAST else "yes") if is_said else "",
    )


def clean_kernel(kernel: str) -> str:
    """A kernel's name in capitals where it is of a known form, `other` where not, blank where there is none."""
    kernel = " ".join(kernel.upper().replace("\\", " ").split())
    is_known = kernel in WORDS or KERNEL.fullmatch(kernel)
    return kernel if is_known or not kernel else OTHER


def _number(header: Header, name: str) -> float:
    """A positive number, NaN where there is none."""
    try:
        found = float(text(header, name))
    except ValueError:
        return math.nan
    return found if 0 < found < 1000 else math.nan
