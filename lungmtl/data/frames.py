"""Enhanced multi-frame CT: every frame of a file as a slice with a header of its own, held to the slices' rules.

Sources: DICOM PS3.3, sections C.7.6.16 (functional groups) and C.8.15.3 (those of CT).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom import uid

from lungmtl.data.headers import Header, number, read_header, text, unreadable, value_of
from lungmtl.data.volume import ScanError, refused
from lungmtl.words import number_of

MULTI_FRAME = (uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
TECHNIQUE = ("ConvolutionKernel", "KVP", "ContrastBolusAgent")  # a file converted from slices has them in other places
UNASSIGNED = tuple(f"Unassigned{whose}ConvertedAttributesSequence" for whose in ("Shared", "PerFrame"))
GROUPS = {  # functional group -> element of it -> the element of a slice that it stands for
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {name: name for name in ("RescaleSlope", "RescaleIntercept", "RescaleType")},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "CTReconstructionSequence": {"ConvolutionKernel": "ConvolutionKernel"},
    "CTXRayDetailsSequence": {"KVP": "KVP"},
    "ContrastBolusUsageSequence": {"ContrastBolusAgentAdministered": "ContrastBolusAgent"},
    **{group: {name: name for name in TECHNIQUE} for group in UNASSIGNED},
}
OF_A_FRAME = {name for group in GROUPS.values() for name in group.values()} - {"ImageType", *TECHNIQUE}
GROUP_SEQUENCES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def frame_count(file: Path) -> int:
    """Number of frames that a file's header says; 1 of a plain slice, and of a file that cannot be read."""
    try:
        return int(number(read_header(file, ""), "NumberOfFrames"))
    except ScanError:
        return 1


def frames_of(header: Header, *, is_alone: bool) -> list[Header]:
    """A header for every frame of a file; of a plain slice, its own.

    Raises:
        ScanError: If there is not one functional group for each frame.
    """
    n_frames = int(number(header, "NumberOfFrames")) if text(header, "NumberOfFrames") else 1
    if n_frames == 1 and text(header, "SOPClassUID") not in MULTI_FRAME:
        return [header]
    try:
        shared, own = (list(value_of(header, kind) or []) for kind in GROUP_SEQUENCES)
        plain = {element.keyword: element.value for element in header.values if element.keyword not in GROUP_SEQUENCES}
        plain = {name: value for name, value in plain.items() if name not in OF_A_FRAME} | _values(shared)
        frames = [plain | _values([group]) for group in own]
    except Exception as error:  # as in read_header
        raise unreadable(header.name, error) from None
    if len(frames) != n_frames:
        must = "A multi-frame CT must have a functional group for each frame"
        raise refused(must, f"{len(frames)} for {number_of(n_frames, 'frame')}", header.name)
    within = "" if is_alone else f" in {header.name}"
    return [
        header._replace(name=f"frame {place + 1} of {n_frames}{within}", values=values, frame=place, n_frames=n_frames)
        for place, values in enumerate(frames)
    ]


def _values(groups: Sequence[pydicom.Dataset]) -> dict[str, Any]:
    """What functional groups say, under the names that slices have it by."""
    return {
        name: item.get(element)
        for group in groups[:1]
        for sequence, names in GROUPS.items()
        for item in (group.get(sequence) or [])[:1]
        for element, name in names.items()
        if element in item
    }
