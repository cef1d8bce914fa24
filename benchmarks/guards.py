"""How far a restored scan departs from what was acquired, by the width of the profile it is sampled with again.

    python -m benchmarks.guards BIDS_DIR --participant-label sag --volumes 6 --output benchmarks/results/guards.md

The profile of the guards (the root of acquired^2 - target^2) is compared with one as wide as an acquired voxel: the
wrong one departs at every border. In standard errors; noise alone gives 1, or less where it was kept.
"""

import argparse
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bids_sr.bids.inputs import DwiSeries, find_series
from bids_sr.config import Config
from bids_sr.degradation import cell_centres, sampling_matrix
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.consistency import Support, acquired_support, covered, observation
from bids_sr.dwi.gradients import read_gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.geometry import Grid, apply_along_axes
from bids_sr.inference.upsampler import restore_volumes
from bids_sr.models.registry import load_model

B0_THRESHOLD = 50.0
CPU = torch.device("cpu")
HEADINGS = ("scan", "scale", "method", "b (s/mm2)", "acquired^2 - target^2", "acquired^2")


def rows(series: DwiSeries, scale: float, models: list[str], n_volumes: int) -> list[str]:
    """A line of the table per model and shell, from the first b0 and the first weighted volumes of the scan."""
    image = nib.Nifti1Image.from_filename(series.dwi)
    gradients = read_gradients(series.bval, series.bvec)
    source = Grid.of(image)
    target = source.scaled(np.full(3, scale))
    mask = brain_mask(mean_b0(image.dataobj, gradients.bvals, B0_THRESHOLD), source.affine)
    support = acquired_support(image.dataobj, gradients, B0_THRESHOLD, mask, source)
    b0, weighted = np.flatnonzero(support.shells == 0)[:1], np.flatnonzero(support.shells == 1)[: n_volumes - 1]
    data = np.stack([np.asarray(image.dataobj[..., v], np.float32) for v in (*b0, *weighted)], axis=-1)
    wide = [
        sampling_matrix("gaussian", n, cell_centres(m, n / m), n / m)
        for n, m in zip(target.shape, source.shape, strict=True)
    ]
    lines = []
    for name in models:
        model, card = load_model(name, CPU)
        volumes = restore_volumes(
            data, gradients.bvals[[*b0, *weighted]], source, target, mask, model,
            signal=card.signal, b0_threshold=B0_THRESHOLD, device=CPU,
        )  # fmt: skip
        restored = np.stack(list(volumes), axis=-1)
        for shell, of_shell in enumerate((slice(0, 1), slice(1, None))):
            both = [
                departs(support, shell, data[..., of_shell], restored[..., of_shell], target, matrices)
                for matrices in (observation(target, source), wide)
            ]
            b = support.bvals[shell]
            lines.append(f"| {series.stem} | {scale:g} | {name} | {b:.0f} | {both[0]:.2f} | {both[1]:.2f} |")
    return lines


def departs(
    support: Support, shell: int, acquired: np.ndarray, restored: np.ndarray, target: Grid, matrices: list[np.ndarray]
) -> float:
    """Root mean square departure of the mean over volumes, (x, y, z, n), in standard errors."""
    inside = support.mask & covered(target, support.grid)
    noise = support.voxel_sd[shell][inside[support.mask]] / np.sqrt(acquired.shape[-1])
    seen = apply_along_axes(restored.mean(axis=-1), matrices)
    return float(np.sqrt(np.mean(((seen - acquired.mean(axis=-1))[inside] / noise) ** 2)))


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--participant-label", nargs="+", required=True)
    parser.add_argument("--scale", type=float, nargs="+", default=[1.25, 1.5, 2, 3])
    parser.add_argument("--models", nargs="+", default=["cubic", "light"])
    parser.add_argument("--volumes", type=int, default=6, help="a b0 and weighted volumes of the lowest shell")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    nowhere = Path(tempfile.gettempdir())
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    for series in find_series(
        Config(options.bids_dir, nowhere, nowhere, participants=tuple(options.participant_label))
    ):
        for scale in options.scale:
            lines += rows(series, scale, options.models, options.volumes)
    print("\n".join(lines))
    options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
