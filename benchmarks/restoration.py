"""Degrade acquired scans, put them through the `bids_sr` command, and compare what comes back with what was acquired.

    python -m benchmarks.restoration BIDS_DIR --participant-label elition --output benchmarks/results/restoration.md

A series is sampled with voxels `scale` times as wide, cells aligned, through a Gaussian point-spread function whose
full width at half maximum is one new voxel, or by another `--profile`. The degraded copy, with the T1w where there is
one, is a BIDS dataset of its own; the command restores it at the acquired voxel size. Everything is measured inside
the brain mask of the acquired scan: PSNR per weighted volume, whose peak is the range of that volume in the mask; SSIM
likewise; mean absolute errors of FA and MD; median angle of V1 where the acquired FA exceeds 0.3. Where the model tells
its uncertainty, also the share of acquired values (weighted intensities, FA, MD) within its 90 % intervals.
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
from bids_sr.cli.evaluate import parse_scale, scale_text
from bids_sr.config import Config
from bids_sr.degradation import PROFILES, Profile, degrade
from bids_sr.dwi.gradients import is_b0
from bids_sr.dwi.tensor import fit_tensor
from bids_sr.evaluation.benchmark import compare_tensors, compare_volumes
from bids_sr.evaluation.reading import read_reference
from bids_sr.evaluation.tables import signal_means
from bids_sr.geometry import Grid
from bids_sr.models.registry import read_card
from bids_sr.training.spread import DEVIATIONS

B0_THRESHOLD = 50.0
HEADINGS = ("scan", "scale", "method", "PSNR (dB)", "PSNR b0", "SSIM", "FA error", "MD error (1e-4 mm2/s)", "V1 (deg)")
HEADINGS_OF_INTERVALS = ("intensities in 90 % (%)", "FA in 90 % (%)", "MD in 90 % (%)")


def write_degraded(series: DwiSeries, scale: NDArray[np.float64], folder: Path, profile: Profile = "gaussian") -> None:
    """Write a raw dataset with the series sampled by a profile at voxels `scale`, (3,), times as wide."""
    image = nib.Nifti1Image.from_filename(series.dwi)
    low, grid = degrade(np.asarray(image.dataobj, dtype=np.float32), Grid.of(image), scale, profile=profile)
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
    if read_card(model).uncertain:
        words.append("--uncertainty")
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    files = {name: next((folder / "out").rglob(f"*_desc-{name}_dwi.nii.gz")) for name in ("cubic", "sr")}
    return {name: nib.Nifti1Image.from_filename(file) for name, file in files.items()}


def within_intervals(series: DwiSeries, restored: nib.Nifti1Image, folder: Path) -> list[float]:
    """Shares in % of acquired weighted intensities, FA and MD that lie in the 90 % intervals of a run in `folder`."""
    reference = read_reference(series, B0_THRESHOLD)
    mask, weighted = reference.mask, ~is_b0(reference.gradients.bvals, B0_THRESHOLD)
    spreads = {suffix: next(folder.rglob(f"*_desc-uncertainty_{suffix}.nii.gz")) for suffix in ("dwimap", "FA", "ADC")}
    deviations = {suffix: np.asarray(nib.Nifti1Image.from_filename(f).dataobj)[mask] for suffix, f in spreads.items()}
    values = np.asarray(restored.dataobj, dtype=np.float32)
    own, other = (fit_tensor(data, reference.gradients, B0_THRESHOLD, mask) for data in (reference.data, values))
    errors = {"dwimap": (values - reference.data)[mask][:, weighted]}
    errors |= {"FA": (other.fa - own.fa)[mask], "ADC": (other.md - own.md)[mask]}
    deviations["dwimap"] = deviations["dwimap"][:, weighted]
    return [float(100 * np.mean(np.abs(errors[s]) <= DEVIATIONS * deviations[s])) for s in ("dwimap", "FA", "ADC")]


def measure(series: DwiSeries, restored: dict[str, nib.Nifti1Image]) -> Iterator[tuple[str, list[float]]]:
    """Each method's name and its figures, in the order of the headings."""
    reference = read_reference(series, B0_THRESHOLD)
    for name, result in restored.items():
        if result.shape != reference.data.shape or not np.allclose(result.affine, reference.grid.affine, atol=1e-3):
            raise SystemExit(f"{name}: {result.shape} does not lie where {series.dwi.name} does")
        values = np.asarray(result.dataobj, dtype=np.float32)
        signals, tensor = signal_means(compare_volumes(reference, values)), compare_tensors(reference, values)
        figures = [signals[figure] for figure in ("psnr_mask", "psnr_b0", "ssim_mask")]
        yield name, [*figures, tensor.fa_error, 1e4 * tensor.md_error, tensor.v1_angle]


def row(label: str, scale: str, method: str, figures: list[float]) -> str:
    """A line of the Markdown table."""
    digits = (2, 2, 3, 4, 3, 2)
    shown = [
        "–" if np.isnan(value) else f"{value:.{n}f}" for value, n in zip(figures, (*digits, 1, 1, 1), strict=False)
    ]
    return "| " + " | ".join([label, scale, method, *shown]) + " |"


def introduction(model: str, profile: Profile) -> str:
    """What was run, on what."""
    card = read_card(model)
    headings = HEADINGS + (HEADINGS_OF_INTERVALS if card.uncertain else ())
    return "\n".join(
        [
            f"bids_sr {__version__}, model {card.name} ({card.parameters:,} parameters), {card.weights_sha256[:12]},",
            f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, {date.today()}.",
            f"Trained on: {', '.join(card.training.get('scans', []))}. Degraded by the profile {profile}.",
            "",
            "| " + " | ".join(headings) + " |",
            "|" + " --- |" * len(headings),
        ]
    )


def main() -> None:
    """Run all scans and scales; the table grows as they end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--participant-label", nargs="+", required=True)
    parser.add_argument("--scales", nargs="+", type=parse_scale, default=[(s,) * 3 for s in (1.5, 2, 2.4, 3, 4)])
    parser.add_argument("--profile", choices=PROFILES, default="gaussian")
    parser.add_argument("--model", default="default")
    parser.add_argument("--output", type=Path, required=True)
    options, extra = parser.parse_known_args()
    lines = [introduction(options.model, options.profile)]
    nowhere = Path(tempfile.gettempdir())
    for series in find_series(
        Config(options.bids_dir, nowhere, nowhere, participants=tuple(options.participant_label))
    ):
        grid = Grid.of(nib.Nifti1Image.from_filename(series.dwi))
        for scale in options.scales:
            with tempfile.TemporaryDirectory() as name:
                write_degraded(series, np.array(scale), Path(name) / "data", options.profile)
                restored = restore(Path(name), grid.voxel_sizes, options.model, extra)
                for method, figures in measure(series, restored):
                    if method == "sr" and read_card(options.model).uncertain:
                        figures += within_intervals(series, restored["sr"], Path(name) / "out")
                    elif read_card(options.model).uncertain:
                        figures += [float("nan")] * len(HEADINGS_OF_INTERVALS)
                    lines.append(row(series.stem, scale_text(scale), method, figures))
                    print(lines[-1], flush=True)
            options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
