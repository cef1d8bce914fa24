"""Make an acquired scan finer, average its tensor maps back, and compare with the acquired maps: what happens to noise.

    python -m benchmarks.acquired_noise BIDS_DIR --participant-label sag --output benchmarks/results/acquired_noise.md

Degraded scans have less noise than acquired ones; this shows what a model does to the noise of a scan as it is. FA
averaged back onto the acquired grid should not rise.
"""

import argparse
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bids_sr.bids.inputs import DwiSeries, find_series
from bids_sr.config import Config
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import read_gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.dwi.tensor import fit_tensor
from bids_sr.geometry import Grid, overlap_average
from bids_sr.inference.upsampler import restore_mask, restore_volumes
from bids_sr.models.registry import load_model

B0_THRESHOLD = 50.0
CPU = torch.device("cpu")
HEADINGS = ("scan", "scale", "method", "FA bias", "FA bias in WM", "FA difference", "MD bias (1e-4 mm2/s)")


def rows(series: DwiSeries, scale: float, models: list[str]) -> list[str]:
    """A line of the table per model; white matter is where the acquired FA exceeds 0.35."""
    image = nib.Nifti1Image.from_filename(series.dwi)
    data, gradients = np.asarray(image.dataobj, dtype=np.float32), read_gradients(series.bval, series.bvec)
    source = Grid.of(image)
    target = source.scaled(np.full(3, scale))
    mask = brain_mask(mean_b0(data, gradients.bvals, B0_THRESHOLD), source.affine)
    inside = restore_mask(mask, source, target)
    acquired = fit_tensor(data, gradients, B0_THRESHOLD, mask)
    lines = []
    for name in models:
        model, card = load_model(name, CPU)
        volumes = restore_volumes(
            data, gradients.bvals, source, target, mask, model,
            signal=card.signal, b0_threshold=B0_THRESHOLD, device=CPU,
        )  # fmt: skip
        fine = fit_tensor(np.stack(list(volumes), axis=-1), gradients, B0_THRESHOLD, inside)
        fa = overlap_average(fine.fa, target, source, inside) - acquired.fa
        md = overlap_average(fine.md, target, source, inside) - acquired.md
        white = mask & (acquired.fa > 0.35)
        figures = f"{fa[mask].mean():+.4f} | {fa[white].mean():+.4f} | {np.abs(fa[mask]).mean():.4f}"
        lines.append(f"| {series.stem} | {scale:g} | {name} | {figures} | {1e4 * md[mask].mean():+.3f} |")
    return lines


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--participant-label", nargs="+", required=True)
    parser.add_argument("--scale", type=float, default=1.6)
    parser.add_argument("--models", nargs="+", default=["cubic", "light"])
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    nowhere = Path(tempfile.gettempdir())
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    for series in find_series(
        Config(options.bids_dir, nowhere, nowhere, participants=tuple(options.participant_label))
    ):
        lines += rows(series, options.scale, options.models)
    print("\n".join(lines))
    options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
