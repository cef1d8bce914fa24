"""Time of each stage and peak memory of a run of the `bids_sr` command, from its start to the report.

    python -m benchmarks.whole_app --nprocs 2 --output-resolution 1 > benchmarks/results/whole_app.md
    python -m benchmarks.whole_app --dataset BIDS_DIR --participant-label elition --nprocs 2 --scale 2

Without a dataset, a scan of 65 volumes is made: smooth noise in an ellipsoid of 1.4 litres, in the field of view of a
whole head, 112 x 112 x 70 voxels of 2 mm, without T1w; `--volumes` makes more or fewer. Options that it does not know
are those of the command.
Times of stages are those of the log, stages side by side count each. Memory is what processes hold of their own, looked
at ten times a second (Linux alone tells it); files that they have mapped are the system's to drop.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
        with subprocess.Popen(command) as run:
            held = MostHeld(run)
            status = run.wait()
        wall = time.perf_counter() - began
        if status == 0:
            scan = f"made scan of {options.volumes} volumes" if options.dataset is None else options.dataset.name
            print(introduction(scan, passed))
            print(markdown(("stage", "seconds", "of the run"), rows(list(stages(folder / "out" / "logs")), wall)))
            print(
                "\nMost memory at a time, in GB of 1024^3 bytes: "
                f"{held.one:.2f} in one process, {held.together:.2f} in all; "
                f"for the largest stage the dry run told {told_gb(told):.1f}."
            )
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


class MostHeld:
    """The most memory that a process and those that it started hold of their own, in GB, until it ends.

    Attributes
    ----------
    one, together : float
        In one process, and in all at a time.
    """

    def __init__(self, run: subprocess.Popen[bytes]) -> None:
        self.one = self.together = 0.0
        self._run = run
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Look again and again."""
        while self._run.poll() is None:
            sizes = held_gb(self._run.pid)
            self.one, self.together = max([self.one, *sizes]), max(self.together, sum(sizes))
            time.sleep(0.1)


def held_gb(process: int) -> list[float]:
    """Memory, in GB, that a process and those that it started hold of their own, without the files that are mapped."""
    parents, sizes = {}, {}
    for file in Path("/proc").glob("[0-9]*/status"):
        # A process may end while it is looked at.
        with suppress(OSError, KeyError):
            lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
            number = int(lines["Pid"])
            parents[number], sizes[number] = int(lines["PPid"]), int(lines["RssAnon"].split()[0]) / 1024**2
    family, found = {process}, 0
    while len(family) > found:
        found = len(family)
        family |= {number for number, parent in parents.items() if parent in family}
    return [sizes[number] for number in family & sizes.keys()]


if __name__ == "__main__":
    raise SystemExit(main())
