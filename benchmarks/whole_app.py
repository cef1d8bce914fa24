"""Time of each stage and peak memory of a run of the `bids_sr` command, from its start to the report.

    python -m benchmarks.whole_app --nprocs 2 --output-resolution 1 > benchmarks/results/whole_app.md
    python -m benchmarks.whole_app --dataset BIDS_DIR --participant-label elition --nprocs 2 --scale 2

Without a dataset, a scan of 65 volumes is made: smooth noise in an ellipsoid of 1.4 litres, in the field of view of a
whole head, 112 x 112 x 70 voxels of 2 mm, without T1w; `--volumes` makes more or fewer. Options that it does not know
are those of the command.
Times of stages are those of the log, stages side by side count each; memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from benchmarks.speed import HEAD, made_scan, processor_name
from benchmarks.table_layout import markdown
from bids_sr import __version__
from bids_sr.demo.acquisition import fsl_bvecs, gradient_scheme

N_VOLUMES, N_B0 = 65, 5
#: Nodes that take less than this part of the run are put together.
LEAST_SHARE = 0.01


def make_dataset(folder: Path, n_volumes: int) -> None:
    """Write the made scan as a BIDS dataset."""
    data, _, mask = made_scan(HEAD, n_volumes)
    bvals, directions = gradient_scheme(N_B0, n_volumes - N_B0, 1000.0)
    # Bright inside and weighted, so that a mask is found and a tensor fits.
    data = (data + 500) * mask[..., None] * np.where(bvals > 0, 0.4, 1.0).astype(np.float32)
    scans = folder / "sub-01" / "dwi"
    scans.mkdir(parents=True)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "Made", "BIDSVersion": "1.10.0"}))
    nib.Nifti1Image(data.astype(np.int16), HEAD.affine).to_filename(scans / "sub-01_dwi.nii.gz")
    np.savetxt(scans / "sub-01_dwi.bval", bvals[None], fmt="%g")
    np.savetxt(scans / "sub-01_dwi.bvec", fsl_bvecs(directions, HEAD.affine), fmt="%.6f")


def stages(logs: Path) -> Iterator[tuple[str, float]]:
    """Each stage's name and its seconds, as the logs in a folder tell them."""
    for log in logs.glob("*.log"):
        for found in re.finditer(r": (\S+) took ([\d.]+) s$", log.read_text(encoding="utf-8"), re.MULTILINE):
            yield found[1], float(found[2])


def rows(found: Sequence[tuple[str, float]], wall: float) -> Iterator[Sequence[str]]:
    """The stages by their time, those that hardly count together."""
    small = [seconds for _, seconds in found if seconds < LEAST_SHARE * wall]
    for name, seconds in sorted(found, key=lambda stage: -stage[1]):
        if seconds >= LEAST_SHARE * wall:
            yield name, f"{seconds:.1f}", f"{100 * seconds / wall:.0f} %"
    yield f"{len(small)} others", f"{sum(small):.1f}", f"{100 * sum(small) / wall:.0f} %"
    yield "whole run", f"{wall:.1f}", "100 %"


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", type=Path, help="a BIDS dataset instead of the made one")
    parser.add_argument("--volumes", type=int, default=N_VOLUMES, help="of the made scan")
    options, passed = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.dataset is None:
            make_dataset(folder / "made", options.volumes)
        dataset, work = options.dataset or folder / "made", folder / "work"
        parts = [sys.executable, "-m", "bids_sr", dataset, folder / "out", "participant", "-w", work, *passed]
        command = [str(part) for part in parts]
        told = subprocess.run([*command, "--dry-run"], check=False, capture_output=True, text=True).stdout
        began = time.perf_counter()
        status = subprocess.run(command, check=False).returncode
        wall = time.perf_counter() - began
        if status == 0:
            scan = f"made scan of {options.volumes} volumes" if options.dataset is None else options.dataset.name
            print(introduction(scan, passed))
            print(markdown(("stage", "seconds", "of the run"), rows(list(stages(folder / "out" / "logs")), wall)))
            print(f"\nLargest process: {peak_gb():.2f} GB of 1024^3 bytes; the dry run told {told_gb(told):.1f} GB.")
    return status


def introduction(scan: str, passed: Sequence[str]) -> str:
    """What was run, on what; stages that run side by side add up to more than the run."""
    return (
        f"bids_sr {__version__}, torch {torch.__version__}, {processor_name()}, {date.today()}; "
        f"{scan}; options: {' '.join(passed) or 'none'}.\n"
    )


def told_gb(dry_run: str) -> float:
    """The most memory that a dry run tells of a series."""
    return max(float(size) for size in re.findall(r"([\d.]+) GB$", dry_run, re.MULTILINE))


def peak_gb() -> float:
    """Most memory that one of the processes that have ended held; Linux gives it in KB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2


if __name__ == "__main__":
    raise SystemExit(main())
