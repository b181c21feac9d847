"""Data: images and tables to prepared scans; knows files and HU, never a network."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "checks": ["CHECKED_FILE", "check_cohort"],
        "cohort": [
            *("ANSWERS", "ATTRIBUTES", "DOWNLOAD", "SCAN_NAME"),
            *("attributes", "exclude_failed", "included", "missing_images", "read_cohort"),
        ],
        "dataset": ["ScanDataset"],
        "flow": ["patient_flow"],
        "grid": ["lung_grid", "middle_voxel", "to_grid"],
        "labels": ["ALL", "counts", "examples", "known_together", "odds_ratios"],
        "masks": ["NODULE_MASK", "labels_on", "own_lungs"],
        "labelling": ["LABELLINGS", "Labelling"],
        "lungs": ["Lungs", "find_lungs", "lung_mask"],
        "patterns": ["labelled"],
        "preparation": ["Preparation", "prepared_folder"],
        "prepared": ["prepare_cohort"],
        "images": ["reason", "stamp"],
        "nifti": ["check_voxels", "read_fields"],
        "reading": ["open_image", "read_mask", "read_volume"],
        "rows": ["check_csv"],
        "splits": ["assign_splits", "check_splits", "in_training_set", "judge_splits"],
        "tensor": ["prepare", "prepare_scan", "seen_mask"],
        "thumbnails": ["gallery"],
        "verify": ["verify_images", "verify_prepared"],
        "volume": ["ScanError", "Volume", "last_line", "to_hu"],
    },
)
