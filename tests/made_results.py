"""Output folders as participant runs leave them, without the images: records and tables of any number of series.

``python -m tests.made_results FOLDER 500`` makes one to look at: raw dataset in FOLDER/raw, results in FOLDER/out.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from bids_sr.bids.outputs import save_table, write_json
from bids_sr.evaluation.group import MAPS, METHODS, TISSUES

#: Mean of each map and tissue in the made people.
MEANS = {
    "FA": {"WM": 0.42, "GM": 0.17, "CSF": 0.12, "brain": 0.28},
    "MD": {"WM": 7.6e-4, "GM": 9.0e-4, "CSF": 2.1e-3, "brain": 9.3e-4},
    "AD": {"WM": 1.14e-3, "GM": 1.05e-3, "CSF": 2.3e-3, "brain": 1.2e-3},
    "RD": {"WM": 5.7e-4, "GM": 8.2e-4, "CSF": 1.9e-3, "brain": 8.0e-4},
}
SHIFT = {"orig": 1.0, "cubic": 0.97, "sr": 1.01}


def tensor_rows(factor: float = 1.0, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a tensor table; `factor` makes the whole head more or less anisotropic and diffuse."""
    random = np.random.default_rng(seed)
    rows = []
    for name in MAPS:
        for tissue in TISSUES:
            person = factor * MEANS[name][tissue] * random.normal(1, 0.04)
            for method in METHODS:
                mean = person * SHIFT[method] * random.normal(1, 0.006)
                compared = method != "orig"
                row = {
                    "map": name,
                    "tissue": tissue,
                    "method": method,
                    "n_voxels": 900 + len(tissue),
                    "mean": float(mean),
                    "sd": float(mean / 4),
                    "median": float(mean * 0.99),
                    "bias": float(mean - person) if compared else None,
                    "mae": float(person * random.uniform(0.05, 0.09)) if compared else None,
                    "correlation": float(random.uniform(0.9, 0.98)) if compared else None,
                    "v1_angle": None,
                }
                if compared and (name, tissue) == ("FA", "WM"):
                    row["v1_angle"] = float(random.uniform(2, 6))
                rows.append(row)
    return rows


def made_record(series: str, resolution: str, rows: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    """Record of a series that is done; `parts` replace or join its own."""
    subject, *rest = series.split("_")
    folder = "/".join([subject, *(part for part in rest if part.startswith("ses-"))])
    images = [
        f"{folder}/dwi/{series}_res-{resolution}_desc-sr_dwi.nii.gz",
        f"{folder}/dwi/{series}_res-{resolution}_desc-tensor_stats.tsv",
    ]
    return {
        "schema": 1,
        "status": "done",
        "label": series.replace("_", " "),
        "stem": series,
        "started": "2024-05-01T10:00:00+00:00",
        "version": "0.1.0",
        "model": {"name": "light"},
        "grids": {"acquired": {"voxel_sizes": [2.0, 2.0, 2.0]}, "target": {"voxel_sizes": [1.0, 1.0, 1.0]}},
        "warnings": [],
        "registration": {"agreement": 0.15},
        "mask": {"source": "median_otsu", "volume_ml": 1400.0},
        "departure": {"done": True, "sr": {"share": 0.02, "voxels": 9000}},
        "self_check": {"done": True, "level": "yes", "sentence": "It helped."},
        "tensor_table": rows,
        "outputs": images,
    } | parts


def write_result(out: Path, series: str, resolution: str = "1", **parts: Any) -> Path:
    """Record, table, restored image (empty) and report of a series; the record's path."""
    rows = parts.pop("rows", None) or tensor_rows(seed=sum(series.encode()))
    record = made_record(series, resolution, rows, **parts)
    for name in record["outputs"]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".tsv"):
            save_table(out / name, rows)
        else:
            (out / name).touch()
    subject = series.split("_")[0]
    (out / f"{subject}.html").write_text("<title>report</title>")
    file = record_file(out, series, resolution)
    write_json(file, record)
    return file


def record_file(out: Path, series: str, resolution: str = "1") -> Path:
    """Where the record of a series is."""
    return out / series.split("_")[0] / "figures" / f"{series}_res-{resolution}_desc-record.json"


def table_file(out: Path, series: str, resolution: str = "1") -> Path:
    """Where the tensor table of a series without session is."""
    return out / series.split("_")[0] / "dwi" / f"{series}_res-{resolution}_desc-tensor_stats.tsv"


def raw_series(raw: Path, *names: str) -> Path:
    """A raw dataset with series by name alone: empty images, as after dropping their content."""
    write_json(raw / "dataset_description.json", {"Name": "Made", "BIDSVersion": "1.10.0"})
    for name in names:
        parts = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
        file = raw.joinpath(*parts, "dwi", f"{name}_dwi.nii.gz")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return raw


WARNINGS = (
    "T1w and b0 share little (agreement 0.05 of 1): the registration may be wrong, or the T1w of somebody else.",
    "The brain mask holds 2510 ml, unlikely for a human brain. Check the mask in the report.",
)


def make_group(folder: Path, n: int, seed: int = 0) -> None:
    """Results of `n` people: a few bad scans, failures, and wrong T1w images among them."""
    random = np.random.default_rng(seed)
    names = [f"sub-{number:04d}_dir-{random.choice(['AP', 'PA'])}" for number in range(1, n + 1)]
    raw_series(folder / "raw", *names)
    for number, name in enumerate(names):
        parts: dict[str, Any] = {
            "mask": {"volume_ml": float(random.normal(1400, 90))},
            "departure": {"sr": {"share": float(random.beta(4, 160)), "voxels": 9000}},
            "registration": {"agreement": float(random.normal(0.152, 0.004))},
        }
        if number % 59 == 17:
            parts |= {"registration": {"agreement": 0.05}, "warnings": [WARNINGS[0]]}
        if number % 83 == 11:
            parts |= {"self_check": {"done": True, "level": "no"}, "warnings": ["Super-resolution did not help here."]}
        if number % 97 == 31:
            parts |= {"mask": {"volume_ml": 2510.0}, "warnings": [WARNINGS[1]]}
        if number % 71 == 5:
            error = {"message": "16 b-values and 16 b-vectors for 17 volumes.", "node": "gradients"}
            parts |= {"status": "failed", "error": error}
        if number % 113 == 3:
            continue
        factor = float(random.choice([0.7, 1.35])) if number % 61 == 7 else 1.0
        write_result(folder / "out", name, "1p25", rows=tensor_rows(factor, seed=number), **parts)


if __name__ == "__main__":
    make_group(Path(sys.argv[1]), int(sys.argv[2]))
