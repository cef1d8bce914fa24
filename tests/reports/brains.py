"""A small made brain and a made record for the tests of the report."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from bids_sr.reports.figures import Anatomy, Panel

FAILED = {
    "schema": 1,
    "status": "failed",
    "label": "sub-01 dir-PA",
    "error": {"message": "16 b-values for 17 volumes", "node": "gradients", "crash_file": "logs/crash-1.txt"},
}

AFFINE = np.array([[-2.0, 0, 0, 20], [0, 2.0, 0, -22], [0, 0, 3.0, -18], [0, 0, 0, 1]])


def ellipsoid(shape: tuple[int, int, int], affine: np.ndarray, radius: float = 16.0) -> np.ndarray:
    index = np.moveaxis(np.indices(shape), 0, -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    return np.linalg.norm(world, axis=-1) < radius


def panel(shape: tuple[int, int, int] = (20, 22, 13), affine: np.ndarray = AFFINE) -> Panel:
    mask = ellipsoid(shape, affine)
    ramp = np.indices(shape).sum(axis=0).astype(np.float32)
    fa = np.where(mask, ramp / ramp.max(), 0).astype(np.float32)
    v1 = np.zeros((*shape, 3), dtype=np.float32)
    v1[..., 0] = 1
    return Panel(affine, 100 * mask + ramp, mask, 50 * mask + ramp, fa, fa * 2e-3, v1)


def fine_panel() -> Panel:
    half = AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0])
    half[:3, 3] = (AFFINE @ [-0.25, -0.25, -0.25, 1])[:3]
    return panel((40, 44, 26), half)


def anatomy() -> Anatomy:
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = -30
    shape = (41, 41, 41)
    layers = [ellipsoid(shape, affine, radius).astype(np.float32) for radius in (18, 12, 6)]
    return Anatomy(100 * sum(layers), affine)


def averaged(acquired: Panel) -> dict[str, Any]:
    return {
        "sr": SimpleNamespace(fa=acquired.fa + np.float32(0.1) * acquired.mask, md=acquired.md),
        "cubic": SimpleNamespace(fa=acquired.fa * np.float32(0.9), md=acquired.md),
    }


def rows() -> list[dict[str, Any]]:
    plain = {"n_voxels": 1200, "mean": 0.4, "sd": 0.1, "median": 0.39}
    none = {"bias": None, "mae": None, "correlation": None, "v1_angle": None}
    cubic = {"bias": -0.02, "mae": 0.05, "correlation": 0.91, "v1_angle": 6.0}
    sr = {"bias": 0.01, "mae": 0.03, "correlation": 0.97, "v1_angle": 4.2}
    return [
        {"map": key, "tissue": tissue, "method": method, **plain, **errors}
        for key in ("FA", "MD")
        for tissue in ("WM", "brain")
        for method, errors in (("orig", none), ("cubic", cubic), ("sr", sr))
    ]


def check_rows() -> list[dict[str, Any]]:
    """Rows of a self-check in which cubic is closer in FA of grey matter alone."""
    return [
        {
            "measure": measure,
            "tissue": tissue,
            "n_voxels": 1200,
            "cubic": 0.25,
            "sr": 0.5,
            "closer": "cubic" if (measure, tissue) == ("FA", "GM") else "sr",
        }
        for measure in ("PSNR", "FA", "MD")
        for tissue in ("brain", "GM")
    ]


def self_check(figures: dict[str, Any] | None = None) -> dict[str, Any]:
    made = {"done": True, "level": "yes", "sentence": "Super-resolution helped <here>.", "scale": [2, 2, 1],
            "voxel_sizes": [4, 4, 3], "n_b0": 1, "n_weighted": 12, "rows": check_rows()}  # fmt: skip
    return made | ({"figures": figures} if figures else {})


def departure(methods: tuple[str, ...] = ("sr", "cubic")) -> dict[str, Any]:
    """What the guard told of the acquired scan, without pictures."""
    region = {
        "b": 1000.0,
        "voxel": [1, 2, 3],
        "centre_mm": [4.0, -10.0, 22.0],
        "z": -27.02,
        "sigma": -9.6,
        "voxels": 40,
    }
    shell = {"volumes": 14, "share": 0.421, "region_share": 0.3, "excess": 1.059}
    numbers = {
        "limit": 3.0, "region_mm": 4.0, "expected": 0.0027, "expected_in_any": 0.0054, "voxels": 3000, "share": 0.448,
        "region_share": 0.5, "shells": [shell | {"b": 0.0}, shell | {"b": 1000.0}], "regions": [region],
    }  # fmt: skip
    return {"done": True, "sentence": "It departs <here>."} | dict.fromkeys(methods, numbers)


def t1w_effect(*, tensor: bool = True) -> dict[str, Any]:
    """What the guard told of the T1w, without pictures."""
    row = {"n_voxels": 3000, "mean": 0.308, "p95": 0.522, "share": 0.012} | (
        {"fa": 0.021, "md": 3e-5} if tensor else {}
    )
    most = {"voxel": [1, 2, 3], "centre_mm": [4.0, -10.0, 22.0], "change": 0.6}
    tissues = {"brain": row, "WM": row | {"mean": 0.5}}
    return {"done": True, "sentence": "The T1w <did> it.", "volumes": 8, "tissues": tissues, "most": most}


def record(figures: dict[str, Any] | None = None) -> dict[str, Any]:
    made = {
        "schema": 1,
        "status": "done",
        "label": "sub-01 dir-AP",
        "stem": "sub-01_dir-AP",
        "started": "2024-05-01T10:00:00",
        "seconds": {"super_resolution": 62.0, "total": 75.0},
        "version": "0.1.0",
        "software": {"dipy": "1.12.0", "torch": "2.5.0"},
        "command_line": "bids_sr /data /out participant --scale 2",
        "options": {"b0_threshold": 50.0},
        "fingerprint": "f" * 64,
        "inputs": {
            "dwi": "bids:raw:sub-01/dwi/sub-01_dir-AP_dwi.nii.gz",
            "t1w": "bids:raw:x",
            "t1w_note": "same session",
        },
        "gradients": {"n_volumes": 3, "n_b0": 1, "shells": [{"b": 1000, "n": 2}]},
        "grids": {
            "acquired": {"shape": [20, 22, 13], "voxel_sizes": [2, 2, 3]},
            "target": {"shape": [40, 44, 26], "voxel_sizes": [1, 1, 1.5], "scale": [2, 2, 2]},
        },
        "model": {
            "name": "light",
            "description": "small",
            "architecture": "csr_dmri",
            "normalization": "shell",
            "weights_sha256": "3f" * 32,
            "parameters": 812345,
            "device": "cpu",
        },
        "warnings": [],
        "registration": {"rotation_degrees": 0.4, "translation_mm": 2.0, "mutual_information": 0.5, "start": "scanner"},
        "mask": {"source": "median_otsu", "volume_ml": 1400.0},
        "tensor_table": rows(),
        "outputs": ["sub-01/dwi/sub-01_dir-AP_res-1_desc-sr_dwi.nii.gz"],
    }
    return made | ({"figures": figures} if figures else {})
