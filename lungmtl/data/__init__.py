"""Data: images and tables to prepared scans; knows files and HU, never a network."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "checks": ["CHECKED_FILE", "check_cohort"],
        "cohort": [
            *("DOWNLOAD", "NODULE_MASK", "attributes", "exclude_failed", "included", "missing_images", "read_cohort"),
        ],
        "dataset": ["ScanDataset"],
        "flow": ["patient_flow"],
        "grid": ["lung_grid", "middle_voxel", "to_grid"],
        "labels": ["ALL", "counts", "examples"],
        "lungs": ["find_lungs", "lung_mask"],
        "preparation": ["Preparation", "prepared_folder"],
        "prepared": ["prepare_cohort"],
        "reading": ["open_image", "read_mask", "read_volume"],
        "splits": ["assign_splits", "blank_figures", "check_splits", "judge_splits"],
        "tensor": ["prepare", "prepare_scan", "seen_mask"],
        "thumbnails": ["gallery"],
        "verify": ["verify_images", "verify_prepared"],
        "volume": ["ScanError", "Volume", "last_line"],
    },
)
