"""Restore the demo's made head, whose truth is known without noise, at 2x: errors of FA and MD against that truth.

    python -m benchmarks.phantom_truth --output benchmarks/results/phantom.md

The head of ellipsoids takes about a minute; `--full` takes the ICBM152 brain (extra `demo`). Scan and T1w are noisy,
the T1w is turned and shifted against the scan, and registered as `bids_sr` does it. The truth is the tensor of the
noise-free signals on voxels half as wide, so these errors, unlike those against an acquired scan, can reach zero.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bids_sr import __version__
from bids_sr.bids.inputs import find_series
from bids_sr.bids.outputs import write_text
from bids_sr.bids.truth import find_truth
from bids_sr.companions import placed_t1w
from bids_sr.config import Config
from bids_sr.demo.dataset import make_dataset
from bids_sr.dwi.comparison import TISSUES
from bids_sr.dwi.t1w import T1wImage, t1w_channel
from bids_sr.dwi.tensor import TensorMaps, fit_tensor
from bids_sr.errors import BidsSrError
from bids_sr.evaluation.benchmark import LEAST_FA, Reference
from bids_sr.evaluation.metrics import direction_error, mean_absolute_error
from bids_sr.evaluation.reading import read_reference
from bids_sr.geometry import Grid
from bids_sr.images import load_array, load_mask
from bids_sr.inference.upsampler import restore_volumes
from bids_sr.models.registry import load_model

B0_THRESHOLD = 50.0
SCALE = 2.0
BASELINE = "cubic"
#: The largest part of cubic's FA error in the brain that the model should have, with the T1w.
FA_BAR = 0.5
CPU = torch.device("cpu")
HEADINGS = ("model", "T1w", "tissue", "FA error", "of cubic's", "MD error (1e-4 mm2/s)", "of cubic's", "V1 (deg)")


@dataclass(frozen=True)
class Head:
    """A made scan, the T1w in its world, and the truth on the fine grid."""

    scan: Reference
    t1w: T1wImage | None
    agreement: float
    target: Grid
    maps: TensorMaps
    regions: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Errors:
    """Of the tensor in one region: mean absolute errors, and the median angle where the true FA exceeds `LEAST_FA`."""

    fa: float
    md: float
    v1: float


def make_head(folder: Path, *, full: bool, seed: int, snr: float) -> Head:
    """Make a head in an empty folder and read it as the application would."""
    make_dataset(folder, small=not full, seed=seed, snr=snr)
    (series,) = find_series(Config(folder, folder, folder, participants=("01",)))
    scan = read_reference(series, B0_THRESHOLD)
    target = scan.grid.scaled(np.full(3, SCALE))
    truth = find_truth(series, target)
    if truth is None:
        raise SystemExit("the demo's truth does not lie on the grid of scale 2")
    mask, tissues = load_mask(truth.mask), load_array(truth.tissues).astype(np.uint8)
    maps = fit_tensor(load_array(truth.dwi), scan.gradients, B0_THRESHOLD, mask)
    placed = placed_t1w(series, scan.b0, scan.grid, scan.mask)
    regions = {"brain": mask} | {name: mask & (tissues == label) for name, label in TISSUES.items()}
    return Head(scan, placed.image, placed.agreement or 0.0, target, maps, regions)


def errors(head: Head, model_name: str, *, with_t1w: bool) -> dict[str, Errors]:
    """How far the tensor of the restored scan is from the true one, by region."""
    model, card = load_model(model_name, CPU)
    scan, t1w = head.scan, head.t1w if with_t1w else None
    volumes = restore_volumes(
        scan.data, scan.gradients.bvals, scan.grid, head.target, scan.mask, model,
        signal=card.signal, b0_threshold=B0_THRESHOLD, device=CPU, guide=t1w,
        t1w=None if t1w is None else t1w_channel(t1w.voxels, t1w.grid, scan.grid, scan.mask),
    )  # fmt: skip
    found = fit_tensor(np.stack(list(volumes), axis=-1), scan.gradients, B0_THRESHOLD, head.regions["brain"])
    return {
        name: Errors(
            mean_absolute_error(head.maps.fa, found.fa, region),
            mean_absolute_error(head.maps.md, found.md, region),
            direction_error(head.maps.v1, found.v1, region & (head.maps.fa > LEAST_FA)),
        )
        for name, region in head.regions.items()
    }


def contenders(models: Iterable[str], head: Head) -> Iterator[tuple[str, bool]]:
    """Each model, and whether it is given the T1w; one that uses it is tried with and without."""
    for name in dict.fromkeys([*models, BASELINE]):
        if head.t1w is not None and load_model(name, CPU)[1].uses_t1w:
            yield name, True
        yield name, False


def table(head: Head, models: Iterable[str]) -> list[str]:
    """The lines of the Markdown table."""
    found = {pair: errors(head, pair[0], with_t1w=pair[1]) for pair in contenders(models, head)}
    baseline = found[BASELINE, False]
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    for (name, with_t1w), regions in found.items():
        for region, error in regions.items():
            fa, md = error.fa / baseline[region].fa, error.md / baseline[region].md
            cells = [Path(name).stem, "yes" if with_t1w else "no", region, f"{error.fa:.4f}", f"{fa:.2f}"]
            cells += [f"{1e4 * error.md:.3f}", f"{md:.2f}", f"{error.v1:.2f}" if np.isfinite(error.v1) else "–"]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", _verdict(found)]


def _verdict(found: Mapping[tuple[str, bool], Mapping[str, Errors]]) -> str:
    """Whether the first model, with the T1w if it was given it, clears the bar."""
    (name, with_t1w), regions = next(iter(found.items()))
    part = regions["brain"].fa / found[BASELINE, False]["brain"].fa
    return (
        f"Bar: FA error in the brain at most {FA_BAR:g} of {BASELINE}'s. {Path(name).stem} "
        f"{'with' if with_t1w else 'without'} the T1w: {part:.2f}, {'cleared' if part <= FA_BAR else 'not cleared'}."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the table; the exit code: 0 done, 2 bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.phantom_truth", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["default", "light"], metavar="MODEL", help="names or cards")
    parser.add_argument("--full", action="store_true", help="the ICBM152 brain instead of the head of ellipsoids")
    parser.add_argument("--seed", type=int, default=0, help="of noise and motion (default: 0)")
    parser.add_argument(
        "--snr", type=float, default=25.0, help="of white matter in a b0 volume (default: 25, the demo's)"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/phantom.md"), help="(%(default)s)")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            head = make_head(Path(folder) / "raw", full=options.full, seed=options.seed, snr=options.snr)
            lines = table(head, options.models)
    except BidsSrError as error:
        print(f"benchmarks.phantom_truth: {error}", file=sys.stderr)
        return error.exit_code
    size = " x ".join(map(str, head.scan.grid.shape))
    made = "ICBM152 brain" if options.full else "head of ellipsoids"
    about = (
        f"bids_sr {__version__}, torch {torch.__version__}. The {made} of the demo, {size} voxels of "
        f"{head.scan.grid.voxel_sizes[0]:g} mm, SNR {options.snr:g}, seed {options.seed}, made twice as fine; "
    )
    about += f"T1w registered (agreement {head.agreement:.2f})." if head.t1w else "the T1w could not be registered."
    text = "\n".join([about, "", *lines]) + "\n"
    print(text, end="")
    write_text(options.output, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
