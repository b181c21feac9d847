"""Plausibility: what of a CT is impossible, and what of one that can be used is worth a look.

A rule takes a checked scan (attributes as `CHECK_MEASURES`, NaN = not known) and returns a sentence with its figure, or
"". Limits were chosen by us where no source is given.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from lungmtl.data.volume import AIR_HU, ScanError
from lungmtl.words import number_of

FIELD_MM = (100.0, 800.0)  # width and depth of a CT: a newborn's chest takes 100 mm, no gantry is wider than 850
LEAST_PIXEL_MM = 0.2  # of clinical CT
RAW_HU, RAW_SHARE = (900, 1200), 0.1  # soft tissue lies there if HU are stored 1000 or 1024 too high; else only bone
SMALL_L, LARGE_L = 1.5, 9.0  # adults hold 2 L and more after breathing out, total capacity is seldom over 9 L
RIGHT_SHARE = (0.46, 0.62)  # of the air: 0.53 to 0.56 in healthy lungs; a lobe holds 0.1 to 0.25 of it
FRONT_RIGHT = 0.47  # of the air low in front: 0.7 in the one real CT, with the heart left; 0.4 without a middle lobe
ONE_LUNG = 0.1  # a side with less of the air has no lung that breathes
CUT_CM2 = 2.0  # less at the image's border is a voxel's width
GAS_L = 0.3  # stomach and bowel of a chest CT hold less
DARK_L = 0.2  # of the lungs: of one pool as dark as gas, a ball of 70 mm
AIR_OFF_HU, TISSUE_OFF_HU = 60, 50  # scanners keep air within 20 HU, contrast moves muscle by less than 30
BIN_HU = 5  # of histograms
FAT_HU, MUSCLE_HU, PEAK = -105, 50, 1.5  # the third: times the mean of -500 to 500 HU, so high is a peak
SCALES = np.geomspace(0.35, 3.0, 61)  # 3.6 % apart; further off there is no air or no tissue left
SCALED, LIKELIER = 0.1, 1.35  # a scale so far off, which fits so many times better than any shift; 2.5 where halved
LUNG_HU = (-960, -500)  # the lungs' median
HIGHEST_MM, FLATTEST = 450.0, 0.3  # of lungs; their height over their width is 0.6 to 1.1 in adults
LEFT_OUT = 0.2  # share of the lungs' air that an own mask leaves out
MAX_SLICE_MM = 5.0  # a nodule of 8 mm is in one slice or two
NOT_ALL = "white, collapsed or missing in part"


def remarks(row: Any, n_wanted: float = math.nan) -> list[str]:
    """Sentences on a scan that was read; `n_wanted` is the table's number of slices.

    Where HU are scaled no lungs can be found, and what is measured of them says nothing.
    """
    rules = (scaled, thickness) if scaled(row) else RULES
    return [text for text in (n_slices(row, n_wanted), *(rule(row) for rule in rules)) if text]


def n_slices(row: Any, n_wanted: float) -> str:
    """Slices that are missing at an end of the image, which no header tells."""
    wrong = row.n_slices != n_wanted and not math.isnan(n_wanted)
    return f"The table says {number_of(n_wanted, 'slice')}, the image has {row.n_slices:g}." if wrong else ""


def bases(row: Any) -> str:
    """Lungs cut straight by the lowest slice."""
    return _end("lowest", "bases", row.below_mm, row.below_cm2, row.slice_mm)


def tops(row: Any) -> str:
    """Lungs cut straight by the highest slice."""
    return _end("highest", "tops", row.above_mm, row.above_cm2, row.slice_mm)


def _end(slice_name: str, part: str, away_mm: float, area_cm2: float, slice_mm: float) -> str:
    if not (away_mm < max(slice_mm, 3.3) and area_cm2 > CUT_CM2):  # lungs are found on blocks of so many mm
        return ""
    return f"The lungs reach the {slice_name} slice, with {area_cm2:.0f} cm2: their {part} may be cut off."


def sides(row: Any) -> str:
    """Lung that ends straight at the image's border or at air outside the body."""
    if not row.cut_cm2 > CUT_CM2:
        return ""
    return f"Lung is cut: {row.cut_cm2:.0f} cm2 of it lie at the image's border or at outside air, without chest wall."


def litres(row: Any) -> str:
    """Lungs of a child, a part of the lungs, or more than lungs."""
    if row.lung_volume_l > LARGE_L:
        return f"The lungs hold {row.lung_volume_l:.1f} L, over {LARGE_L:g} L."
    if row.lung_volume_l < SMALL_L:
        why = "a child's, a part of a chest, or lungs with little air"
        return f"The lungs hold {row.lung_volume_l:.2f} L, below {SMALL_L:g} L: {why}."
    return ""


def symmetry(row: Any) -> str:
    """One lung only, or a lobe without air."""
    low, high = RIGHT_SHARE
    right = row.right_l / max(row.left_l + row.right_l, 1e-6)
    if not (right < low or right > high):
        return ""
    side = "right" if right < low else "left"
    found = f"{row.left_l:.2f} L of air on the left and {row.right_l:.2f} L on the right"
    if min(right, 1 - right) < ONE_LUNG:
        return f"There is one lung only: {found}. The {side} lung is {NOT_ALL}."
    usual = f"the right lung holds {low:.0%} to {high:.0%}"
    why = f"A part of the {side} lung, such as a lobe, is {NOT_ALL}, or the other side holds more than lung"
    return f"The lungs are unequal: {found}; {usual}. {why}."


def middle_lobe(row: Any) -> str:
    """A right middle lobe without air, which is too small to make the lungs unequal."""
    if symmetry(row) or not row.front_right < FRONT_RIGHT:
        return ""
    found = f"Of the air low in front, the right lung holds {row.front_right:.0%}; usual is over {FRONT_RIGHT:.0%}"
    return f"{found}. The middle lobe may be {NOT_ALL}, or the diaphragm or heart lies unusually, as if mirrored."


def gas(row: Any) -> str:
    """Air in the body outside the lungs."""
    if not row.gas_l > GAS_L:
        return ""
    return f"{row.gas_l:.2f} L of air in the body are not counted as lung: gas in the bowel or free, or cut-off lung."


def dark(row: Any) -> str:
    """Gas that no wall parts from the lungs."""
    if not row.dark_l > DARK_L:
        return ""
    why = "gas below the diaphragm or in the bowel, beside a collapsed lung, or a large bulla"
    return f"{row.dark_l:.2f} L counted as lung are as dark as gas: {why}."


def offset(row: Any) -> str:
    """HU shifted as a whole."""
    if abs(row.tissue_off_hu) > TISSUE_OFF_HU:
        fat, muscle = FAT_HU + row.tissue_off_hu, MUSCLE_HU + row.tissue_off_hu
        found = f"fat and muscle lie near {fat:.0f} and {muscle:.0f} HU, not {FAT_HU} and {MUSCLE_HU}"
        return f"HU are shifted by about {row.tissue_off_hu:+.0f}: {found}."
    if abs(row.air_hu + 1000) > AIR_OFF_HU:
        return f"Air outside the body lies at {row.air_hu:.0f} HU, not -1000: HU may be shifted or scaled."
    return ""


def scaled(row: Any) -> str:
    """HU multiplied as a whole."""
    return scaled_text(row.scale) if row.scale > 0 else ""


def scaled_text(scale: float) -> str:
    """What tells that HU are multiplied, by a factor that is known."""
    air, fat, muscle = (scale * hu for hu in (-1000, FAT_HU, MUSCLE_HU))
    seen = f"air, fat and muscle lie near {max(air, AIR_HU):.0f}, {fat:.0f} and {muscle:.0f} HU"
    return f"HU are scaled by about {scale:.2g}: {seen}, not -1000, {FAT_HU} and {MUSCLE_HU}."


def median(row: Any) -> str:
    """Lungs that are not as dark as lungs."""
    low, high = LUNG_HU
    if low <= row.lung_p50 <= high or math.isnan(row.lung_p50):
        return ""
    return f"The lungs' median is {row.lung_p50:.0f} HU, not {low} to {high}."


def height(row: Any) -> str:
    """A distance from slice to slice that does not go with the pixels."""
    found = f"The lungs are {row.lung_z_mm:.0f} mm high and {row.lung_x_mm:.0f} mm wide"
    if row.lung_z_mm > HIGHEST_MM:
        return f"{found}: slices cannot lie {row.slice_mm:g} mm apart."
    if row.lung_z_mm < FLATTEST * row.lung_x_mm:
        return f"{found}: a thin part of a chest, or slices do not lie {row.slice_mm:g} mm apart."
    return ""


def thickness(row: Any) -> str:
    """Slices in which small nodules are lost."""
    return f"Slices lie {row.slice_mm:.1f} mm apart, over {MAX_SLICE_MM:g} mm." if row.slice_mm > MAX_SLICE_MM else ""


def own_mask(row: Any) -> str:
    """An own mask that is not of these lungs."""
    if not row.left_out > LEFT_OUT:
        return ""
    return f"The mask leaves out {row.left_out:.0%} of the lungs' air."


RULES = (offset, bases, tops, sides, litres, dark, symmetry, middle_lobe, gas, median, height, thickness, own_mask)


# ---------------------------------------------------------------- what is impossible


def check_field(shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
    """Refuse a field of view that no chest has.

    Raises:
        ScanError: With the likely cause: a crop, or voxel sizes in another unit.
    """
    low, high = FIELD_MM
    pixel_mm = max(spacing_mm[1:])
    wide = max(n * s for n, s in zip(shape[1:], spacing_mm[1:], strict=True))
    if low <= wide <= high:
        return
    if wide > high:
        why = "the voxel size is too large, as if not in mm"
    else:
        is_tiny = pixel_mm < LEAST_PIXEL_MM
        why = "the voxel size is too small, as if in cm" if is_tiny else "a crop, or a voxel size that is too small"
    found = f"{wide:.0f} mm, {max(shape[1:])} pixels of {pixel_mm:.3g} mm"
    raise ScanError(f"A chest CT must show {low:g} to {high:g} mm across. Found {found}: {why}.")


def raw_values(hu: np.ndarray) -> str:
    """What tells that values are not HU but stored about 1000 too high; "" where nothing does."""
    low, high = RAW_HU
    known = hu[hu > AIR_HU]
    share = float(((known >= low) & (known <= high)).mean()) if known.size else 0.0
    if share < RAW_SHARE:
        return ""
    return f"{share:.0%} of the values at {low} to {high}, as if 1000 or 1024 were added (a rescale intercept of 0)"


# ---------------------------------------------------------------- what the rules need


def air_hu(hu: np.ndarray, lungs: np.ndarray) -> float:
    """HU of the air outside the body: the peak of what is dark and no lung; NaN where there is none.

    `hu` and `lungs`, bool, have one shape; padding, at the lowest value, does not count.
    """
    dark = hu[(hu > AIR_HU) & (hu < -500) & ~lungs]
    counts = np.bincount((dark.astype(np.int32) - AIR_HU) // 10, minlength=53)
    peak = int(np.convolve(counts, np.ones(5), "same").argmax())
    near = dark[np.abs((dark - AIR_HU) // 10 - peak) <= 2]
    return float(np.median(near)) if near.size >= max(0.3 * dark.size, 0.01 * hu.size, 1) else math.nan


def tissue_off_hu(hu: np.ndarray) -> float:
    """By how much fat and muscle, the two peaks of a body, lie off; NaN where these two are not seen."""
    density = _density(hu, -500)
    off = np.arange(-250, 251, BIN_HU)
    peaks = np.stack([density[(tissue + 500 + off) // BIN_HU] for tissue in (FAT_HU, MUSCLE_HU)])
    best = int(peaks.prod(axis=0).argmax())
    return float(off[best]) if peaks[:, best].min() > PEAK else math.nan


def _density(hu: np.ndarray, low_hu: int) -> np.ndarray:
    """Smoothed share of the voxels between `low_hu` and 500 HU in every bin of them, in times an even spread."""
    values = hu[(hu > low_hu) & (hu < 500)].astype(np.int32)
    counts = np.bincount((values - low_hu) // BIN_HU, minlength=(500 - low_hu) // BIN_HU).astype(float)
    return ndimage.gaussian_filter1d(counts / max(values.size, 1), 3) * len(counts)


def hu_scale(hu: np.ndarray) -> float:
    """By which factor HU are scaled; NaN where air, fat and muscle lie where they must, or are shifted, or not seen."""
    density = _density(hu, AIR_HU)

    def likeness(scale: float, off: float) -> float:
        """Mean height, in times an even spread, at air, fat and muscle that are scaled or shifted so."""
        wanted = scale * np.array([-1000, FAT_HU, MUSCLE_HU]) + off
        places = ((wanted[wanted > AIR_HU + 2 * BIN_HU] - AIR_HU) // BIN_HU).astype(int)  # darker air is cut off
        return float(np.prod(scale * density[places]) ** (1 / len(places)))

    shifted = max(likeness(1.0, off) for off in range(-250, 251, BIN_HU))
    fits = [likeness(scale, 0.0) for scale in SCALES]
    best = int(np.argmax(fits))
    is_scaled = abs(SCALES[best] - 1) > SCALED and fits[best] > max(LIKELIER * shifted, PEAK)
    return float(SCALES[best]) if is_scaled else math.nan
