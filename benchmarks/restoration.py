"""Degrade acquired scans, put them through the `bids_sr` command, and compare what comes back with what was acquired.

    python -m benchmarks.restoration BIDS_DIR --participant-label elition --output benchmarks/results/restoration.md

A series is sampled with voxels `scale` times as wide, through a Gaussian point-spread function whose full width at half
maximum is one new voxel, cells aligned. The degraded copy, with the T1w where there is one, is a BIDS dataset of its
own; the command restores it at the acquired voxel size. Everything is measured inside the brain mask of the acquired
scan: PSNR per weighted volume, whose peak is the range of that volume in the mask; SSIM likewise; mean absolute errors
of FA and MD; median angle of V1 where the acquired FA exceeds 0.3.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from bids_sr import __version__
from bids_sr.bids.inputs import DwiSeries, find_series
from bids_sr.config import Config
from bids_sr.degradation import degrade
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import Gradients, is_b0, read_gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.dwi.tensor import fit_tensor
from bids_sr.evaluation.metrics import direction_error, mean_absolute_error, psnr, ssim
from bids_sr.geometry import Grid
from bids_sr.models.registry import read_card

B0_THRESHOLD = 50.0
HEADINGS = ("scan", "scale", "method", "PSNR (dB)", "PSNR b0", "SSIM", "FA error", "MD error (1e-4 mm2/s)", "V1 (deg)")


def write_degraded(series: DwiSeries, scale: NDArray[np.float64], folder: Path) -> None:
    """Write a raw dataset with the series sampled at voxels `scale`, (3,), times as wide."""
    image = nib.Nifti1Image.from_filename(series.dwi)
    low, grid = degrade(np.asarray(image.dataobj, dtype=np.float32), Grid.of(image), scale)
    stem = f"sub-{series.entities['sub']}"
    (folder / stem / "dwi").mkdir(parents=True)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "Degraded", "BIDSVersion": "1.10.0"}))
    target = folder / stem / "dwi" / f"{stem}_dwi.nii.gz"
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    nib.Nifti1Image(low, grid.affine, header).to_filename(target)
    shutil.copyfile(series.bval, target.with_name(f"{stem}_dwi.bval"))
    shutil.copyfile(series.bvec, target.with_name(f"{stem}_dwi.bvec"))
    target.with_name(f"{stem}_dwi.json").write_text(json.dumps(dict(series.sidecar)))
    if series.t1w is not None:
        (folder / stem / "anat").mkdir()
        shutil.copyfile(series.t1w, folder / stem / "anat" / f"{stem}_T1w.nii.gz")


def restore(folder: Path, voxel_sizes: NDArray[np.float64], model: str, extra: list[str]) -> dict[str, nib.Nifti1Image]:
    """Run the command on a degraded dataset; the restored and the interpolated series."""
    sizes = [repr(float(size)) for size in voxel_sizes]
    words = [sys.executable, "-m", "bids_sr", str(folder / "data"), str(folder / "out"), "participant"]
    words += ["--output-resolution", *sizes, "--save-cubic", "--model", model, "-w", str(folder / "work"), *extra]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    files = {name: next((folder / "out").rglob(f"*_desc-{name}_dwi.nii.gz")) for name in ("cubic", "sr")}
    return {name: nib.Nifti1Image.from_filename(file) for name, file in files.items()}


def measure(series: DwiSeries, restored: dict[str, nib.Nifti1Image]) -> Iterator[tuple[str, list[float]]]:
    """Each method's name and its figures, in the order of the headings."""
    image = nib.Nifti1Image.from_filename(series.dwi)
    truth = np.asarray(image.dataobj, dtype=np.float32)
    gradients, grid = read_gradients(series.bval, series.bvec), Grid.of(image)
    b0 = mean_b0(truth, gradients.bvals, B0_THRESHOLD)
    mask = brain_mask(b0, grid.voxel_sizes)
    maps = fit_tensor(truth, gradients, B0_THRESHOLD, mask)
    for name, result in restored.items():
        if result.shape != image.shape or not np.allclose(result.affine, image.affine, atol=1e-3):
            raise SystemExit(f"{name}: {result.shape} does not lie where {series.dwi.name} does")
        values = np.asarray(result.dataobj, dtype=np.float32)
        fitted = fit_tensor(values, gradients, B0_THRESHOLD, mask)
        yield (
            name,
            [
                *signal_figures(truth, values, mask, gradients),
                mean_absolute_error(maps.fa, fitted.fa, mask),
                1e4 * mean_absolute_error(maps.md, fitted.md, mask),
                direction_error(maps.v1, fitted.v1, mask & (maps.fa > 0.3)),
            ],
        )


def signal_figures(
    truth: NDArray[np.float32], values: NDArray[np.float32], mask: NDArray[np.bool_], gradients: Gradients
) -> tuple[float, float, float]:
    """Mean PSNR of the weighted volumes, of the b0 volumes, and mean SSIM of the weighted volumes."""
    b0 = is_b0(gradients.bvals, B0_THRESHOLD)
    ratios = np.array([psnr(truth[..., i], values[..., i], mask) for i in range(len(b0))])
    similarities = [ssim(truth[..., i], values[..., i], mask) for i in np.flatnonzero(~b0)]
    return float(ratios[~b0].mean()), float(ratios[b0].mean()), float(np.mean(similarities))


def row(label: str, scale: tuple[float, ...], method: str, figures: list[float]) -> str:
    """A line of the Markdown table."""
    digits = (2, 2, 3, 4, 3, 2)
    shown = [f"{value:.{n}f}" for value, n in zip(figures, digits, strict=True)]
    return "| " + " | ".join([label, "x".join(f"{s:g}" for s in scale), method, *shown]) + " |"


def introduction(model: str) -> str:
    """What was run, on what."""
    card = read_card(model)
    return "\n".join(
        [
            f"bids_sr {__version__}, model {card.name} ({card.parameters:,} parameters), {card.weights_sha256[:12]},",
            f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, {date.today()}.",
            f"Trained on: {', '.join(card.training.get('scans', []))}.",
            "",
            "| " + " | ".join(HEADINGS) + " |",
            "|" + " --- |" * len(HEADINGS),
        ]
    )


def parse_scale(text: str) -> tuple[float, ...]:
    """`2` or `1x1x2`."""
    parts = [float(part) for part in text.split("x")]
    return tuple(parts * 3) if len(parts) == 1 else tuple(parts)


def main() -> None:
    """Run all scans and scales; the table grows as they end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--participant-label", nargs="+", required=True)
    parser.add_argument("--scales", nargs="+", type=parse_scale, default=[(s,) * 3 for s in (1.5, 2, 2.4, 3, 4)])
    parser.add_argument("--model", default="light")
    parser.add_argument("--output", type=Path, required=True)
    options, extra = parser.parse_known_args()
    lines = [introduction(options.model)]
    nowhere = Path(tempfile.gettempdir())
    for series in find_series(
        Config(options.bids_dir, nowhere, nowhere, participants=tuple(options.participant_label))
    ):
        grid = Grid.of(nib.Nifti1Image.from_filename(series.dwi))
        for scale in options.scales:
            with tempfile.TemporaryDirectory() as name:
                write_degraded(series, np.array(scale), Path(name) / "data")
                restored = restore(Path(name), grid.voxel_sizes, options.model, extra)
                for method, figures in measure(series, restored):
                    lines.append(row(series.stem, scale if len(set(scale)) > 1 else scale[:1], method, figures))
                    print(lines[-1], flush=True)
            options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
