"""Data: images and tables to prepared scans; knows files and HU, never a network."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "checks": ["CHECKED_FILE", "check_cohort"],
        "cohort": ["DOWNLOAD", "attributes", "exclude_failed", "included", "read_cohort"],
        "dataset": ["ScanDataset"],
        "grid": ["lung_grid", "middle_voxel", "to_grid"],
        "labels": ["ALL", "counts", "examples"],
        "labelling": ["KINDS", "Labelling"],
        "lungs": ["find_lungs", "lung_mask"],
        "patterns": ["labelled"],
        "preparation": ["Preparation", "prepared_folder"],
        "prepared": ["prepare_cohort"],
        "reading": ["open_image", "read_mask", "read_volume"],
        "splits": ["assign_splits", "check_splits", "split_if_possible", "without_failed"],
        "tensor": ["prepare", "prepare_scan", "seen_mask"],
        "thumbnails": ["gallery"],
        "verify": ["verify_images", "verify_prepared"],
        "volume": ["ScanError", "Volume", "last_line"],
    },
)
