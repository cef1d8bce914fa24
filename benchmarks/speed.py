"""How near the restoration comes to what the processor can do, and to what others did with the same network.

    python -m benchmarks.speed --threads 2 > benchmarks/results/speed.md

On a made scan (an ellipsoid of 1.4 litres in the field of view of a whole head, 2 mm, restored at 1 mm):

1. Rates of encoder and decoder (lookup included) against multiply-adds in registers (`benchmarks.processor`) and a
   matrix product, measured in turn several times.
2. The restoration of one volume against what its operations take at these rates; against the loop of ArSSR as it is
   described (for each slice of the result the encoder runs anew and the slice alone is asked for; some slices are timed
   and all are counted); and against a fair version of it (encoded once, large chunks, `grid_sample`). Both restore the
   whole field of view, all three have the same weights.
3. How the time grows with the number of volumes and of voxels asked for.
4. Cubic interpolation of one volume to the same grid: ours, scipy's and DIPY's.

With `--picture FILE` it draws which limit each part meets, of arithmetic or of memory (`benchmarks.roofline`).
With `--device cuda` it tells the rates and times of a GPU, without the yardstick in registers.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch
from dipy.align.reslice import reslice
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from benchmarks.processor import Peak
from benchmarks.roofline import BytesMoved, Work, draw, memory_bandwidth
from benchmarks.table_layout import markdown
from bids_sr import __version__
from bids_sr.geometry import Grid, points_in
from bids_sr.inference import upsampler
from bids_sr.inference.device import use_processors
from bids_sr.inference.memory import multiply_adds
from bids_sr.models.base import GUIDE_CHANNELS, Encoded, Lattice
from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.interpolation import cubic_on_grid
from bids_sr.models.registry import ModelCard, load_model

HEAD = Grid((112, 112, 70), np.diag([2.0, 2, 2, 1]))
SMALL_HEAD = Grid((56, 56, 35), np.diag([4.0, 4, 4, 1]))
#: Semi-axes of the brain in mm.
BRAIN = (68, 84, 58)
#: Of the cube that rates are measured on, in voxels; and the voxels asked for in it.
EDGE, QUERIES = 48, 2**17
BIG_CHUNK, MATRIX, TIMED_SLICES = 2**16, 2048, 1

Times = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Subject:
    """What is measured: a network of this package, where it runs, and how often it is measured."""

    model: CsrDmri
    card: ModelCard
    device: torch.device
    threads: int
    repeats: int

    @property
    def n_channels(self) -> int:
        """Channels that the encoder reads."""
        return int(self.model.encoder.shallow.in_channels)

    def guide(self, n: int) -> Tensor | None:
        """What a T1w would tell at n points, for a network that it guides."""
        return torch.rand(n, GUIDE_CHANNELS, device=self.device) if self.card.guided else None

    def ask(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """Values at points, (Q, 3), chunk by chunk as the program does it."""
        size = upsampler.queries_at_once(self.device)
        guide = self.guide(size)
        parts = points.split(size)
        return torch.cat(
            [self.model.query(encoded, p, cell, None if guide is None else guide[: len(p)])[0] for p in parts]
        )

    def seconds(self, work: Callable[[], object]) -> float:
        """How long something takes."""
        began = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    def in_turn(self, works: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """What several measurements give, in turn, so that all of them meet the same neighbours on the machine."""
        rounds = [{name: work() for name, work in works.items()} for _ in range(self.repeats + 1)]
        return {name: [found[name] for found in rounds[1:]] for name in works}


def made_scan(grid: Grid, n: int) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
    """A series of smooth noise, (x, y, z, n), its b-values, and an ellipsoid as its brain."""
    random = np.random.default_rng(0)
    centred = (np.indices(grid.shape).reshape(3, -1).T - np.subtract(grid.shape, 1) / 2) * grid.voxel_sizes
    mask = (np.square(centred / BRAIN).sum(axis=1) <= 1).reshape(grid.shape)
    volumes = [ndimage.gaussian_filter(random.uniform(0, 1000, grid.shape), 1.5) for _ in range(n)]
    return np.stack(volumes, -1).astype(np.float32), np.array([0.0] + [1000.0] * (n - 1)), mask


def twice(grid: Grid) -> Grid:
    """The grid with voxels half as wide."""
    return grid.resized((2 * grid.shape[0], 2 * grid.shape[1], 2 * grid.shape[2]))


def rates(subject: Subject) -> Times:
    """Operations per second: of multiply-adds in registers, of a matrix product, of encoder and decoder."""
    cube = Grid((EDGE,) * 3, np.eye(4))
    points = torch.from_numpy(points_in(cube, twice(cube))[:QUERIES].astype(np.float32))
    points, cell = points.to(subject.device), torch.full((3,), 0.5, device=subject.device)
    channels = torch.rand(1, subject.n_channels, EDGE, EDGE, EDGE, device=subject.device)
    encoded = subject.model.encode(channels, Lattice((0.0,) * 3, (0.5,) * 3))
    matrix = torch.rand(MATRIX, MATRIX, device=subject.device)
    encoding = 2 * EDGE**3 * multiply_adds(subject.model.encoder)
    asking = 2 * len(points) * per_query(subject.model)
    works = {
        "matrix product": lambda: 2 * MATRIX**3 / subject.seconds(lambda: matrix @ matrix),
        "encoder": lambda: (
            encoding / subject.seconds(lambda: subject.model.encode(channels, Lattice((0.0,) * 3, (0.5,) * 3)))
        ),
        "queries": lambda: asking / subject.seconds(lambda: subject.ask(encoded, points, cell)),
    }
    if subject.device.type == "cpu":
        works = {"multiply-adds in registers": partial(Peak().measured, subject.threads)} | works
    return subject.in_turn(works)


def per_query(model: CsrDmri) -> float:
    """Multiply-adds of a query, those of the lookup not counted."""
    return multiply_adds(model.decoder) + (multiply_adds(model.filter) if model.filter is not None else 0)


def parts(subject: Subject, found: Times) -> list[Work]:
    """The parts that rates were measured of, with the operations that each does per byte of memory."""
    channels = torch.rand(1, subject.n_channels, EDGE, EDGE, EDGE)
    with BytesMoved() as moved:
        subject.model.encode(channels, Lattice((0.0,) * 3, (0.5,) * 3))
    encoding = 2 * EDGE**3 * multiply_adds(subject.model.encoder)
    # Eight rows of features, the point and the value; what is between them stays in the cache.
    asking = 4 * (8 * subject.model.kept + 3 + 1)
    intensities = {
        "matrix product": 2 * MATRIX / (3 * 4),
        "encoder": encoding / moved.total,
        "queries": 2 * per_query(subject.model) / asking,
    }
    rates_of = [statistics.median(values) for values in list(found.values())[1:]]
    return [Work(*items, rate) for items, rate in zip(intensities.items(), rates_of, strict=True)]


def rate_rows(found: Times) -> Iterable[Sequence[str]]:
    """Medians, in GFLOP/s, and as parts of the first."""
    yardstick = next(iter(found.values()))
    for name, values in found.items():
        shares = [value / peak for value, peak in zip(values, yardstick, strict=True)]
        yield name, f"{statistics.median(values) / 1e9:.1f}", f"{100 * statistics.median(shares):.0f} %"


def sampled(subject: Subject, encoded: Encoded, points: Tensor, cell: Tensor, chunk: int) -> Tensor:
    """Values at points, (Q,), with features looked up by `grid_sample`, as LIIF and ArSSR do."""
    maps = encoded.rows.unflatten(1, encoded.shape).permute(0, 4, 1, 2, 3)
    last = torch.tensor(encoded.shape, device=points.device) - 1
    found = []
    for part in points.split(chunk):
        where = (2 * part / last - 1).flip(-1)[None, None, None]
        features = nn.functional.grid_sample(maps, where, padding_mode="border", align_corners=True)[0, :, 0, 0].T
        found.append(subject.model.decode(features, part, cell, encoded.shape, subject.guide(len(part)))[0])
    return torch.cat(found)


def one_volume(subject: Subject, found: Times) -> list[Sequence[str]]:
    """A volume of a whole head, restored by us and by the others; times, ratios, and what it should take."""
    target = twice(HEAD)
    _, _, mask = made_scan(HEAD, 1)
    plan = upsampler.plan_restoration(mask, HEAD, target, subject.model.radius)
    channels = np.random.default_rng(1).random((subject.n_channels, *HEAD.shape), dtype=np.float32)
    whole, cell = torch.from_numpy(channels)[None].to(subject.device), plan.cell.to(subject.device)
    points = torch.from_numpy(points_in(HEAD, target).astype(np.float32)).to(subject.device)
    slices = points.split(target.shape[1] * target.shape[2])[:TIMED_SLICES]

    def ours() -> None:
        upsampler.restore_points(subject.model, channels[(slice(None), *plan.box)].copy(), plan, subject.device)

    def arssr() -> None:
        for part in slices:
            sampled(subject, subject.model.encode(whole, plan.lattice), part, cell, len(part))

    def fair() -> None:
        sampled(subject, subject.model.encode(whole, plan.lattice), points, cell, BIG_CHUNK)

    times = subject.in_turn({name: partial(subject.seconds, work) for name, work in {
        "ours": ours, "fair version": fair, "loop of ArSSR": arssr}.items()})  # fmt: skip
    times["loop of ArSSR"] = [value * target.shape[0] / TIMED_SLICES for value in times["loop of ArSSR"]]
    box = float(np.prod([side.stop - side.start for side in plan.box]))
    least = 2 * box * multiply_adds(subject.model.encoder) / statistics.median(found["encoder"])
    least += 2 * len(plan.points) * per_query(subject.model) / statistics.median(found["queries"])
    rows = [
        (name, f"{statistics.median(values):.2f}", f"{ratio(values, times['ours']):.2f}")
        for name, values in times.items()
    ]
    return [
        ("its operations at the rates above", f"{least:.2f}", f"{least / statistics.median(times['ours']):.2f}"),
        *rows,
    ]


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """The median of ratios of measurements made in turn."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def difference(subject: Subject) -> float:
    """Largest difference of values looked up by `grid_sample` from ours."""
    encoded = subject.model.encode(
        torch.rand(1, subject.n_channels, 20, 21, 22, device=subject.device), Lattice((0.0,) * 3, (0.5,) * 3)
    )
    points = torch.rand(5000, 3, device=subject.device) * 19
    cell = torch.full((3,), 0.5, device=subject.device)
    plain = Subject(subject.model, ModelCard(subject.card.name, "", "csr_dmri"), subject.device, subject.threads, 1)
    return float((plain.ask(encoded, points, cell) - sampled(plain, encoded, points, cell, BIG_CHUNK)).abs().max())


def exponents(subject: Subject) -> list[Sequence[str]]:
    """The powers of volumes and of restored voxels that the time grows with, fitted to three of each."""
    data, bvals, mask = made_scan(SMALL_HEAD, 9)

    def restore(n: int, millimetres: float) -> float:
        target = SMALL_HEAD.at_resolution(np.full(3, millimetres))
        volumes = upsampler.restore_volumes(
            data, bvals, SMALL_HEAD, target, mask, subject.model, signal=subject.card.signal, b0_threshold=50,
            device=subject.device, volumes=range(n),
        )  # fmt: skip
        return subject.seconds(lambda: sum(1 for _ in volumes))

    sizes = {size: np.prod(SMALL_HEAD.at_resolution(np.full(3, size)).shape) for size in (2.0, 1.6, 1.2)}
    by_volumes = subject.in_turn({str(n): partial(restore, n, 2.0) for n in (3, 6, 9)})
    by_voxels = subject.in_turn({str(size): partial(restore, 1, size) for size in sizes})
    return [
        ("volumes (3, 6, 9)", f"{slope([3, 6, 9], by_volumes):.2f}"),
        ("voxels of the result (4 mm to 2, 1.6, 1.2 mm)", f"{slope(list(sizes.values()), by_voxels):.2f}"),
    ]


def slope(sizes: Sequence[float], times: Times) -> float:
    """Of the logarithm of the least time over that of the size."""
    return float(np.polyfit(np.log(sizes), np.log([min(values) for values in times.values()]), 1)[0])


def interpolations(subject: Subject) -> list[Sequence[str]]:
    """Seconds of cubic interpolation to the target grid; and how many times ours."""
    data, _, _ = made_scan(HEAD, 1)
    volume, target = data[..., 0], twice(HEAD)
    works = {
        "ours (separable, cubic B-splines)": lambda: cubic_on_grid(volume, HEAD, target),
        "scipy.ndimage.zoom, order 3": lambda: ndimage.zoom(volume, 2, order=3, grid_mode=True, mode="nearest"),
        "dipy.align.reslice, order 3": lambda: reslice(volume, HEAD.affine, (2.0,) * 3, (1.0,) * 3, order=3),
    }
    times = subject.in_turn({name: partial(subject.seconds, work) for name, work in works.items()})
    first = next(iter(times.values()))
    return [(name, f"{statistics.median(v):.2f}", f"{ratio(v, first):.1f}") for name, v in times.items()]


def introduction(subject: Subject) -> str:
    """What was run, on what."""
    card, device = subject.card, subject.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return (
        f"bids_sr {__version__}, {card.name} ({card.parameters:,} parameters, weights {card.weights_sha256[:12]}), "
        f"Python {platform.python_version()}, torch {torch.__version__}, {where}, "
        f"{subject.threads} of {os.cpu_count()} processors, {date.today()}; medians of {subject.repeats}."
    )


def processor_name() -> str:
    """What the processor calls itself, and what arithmetic PyTorch found in it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{platform.machine()}, {name}, {torch.backends.cpu.get_cpu_capability()}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["light", "default"], help="names or cards of CSR-dMRI networks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--picture", type=Path, help="draw the limits of a processor to this file, for the first model")
    options = parser.parse_args(argv)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print("No GPU was found; the rates of one cannot be measured here.", file=sys.stderr)
        return 2
    use_processors(options.threads)
    for name in options.models:
        model, card = load_model(name, options.device)
        assert isinstance(model, CsrDmri), f"{name} is not a CSR-dMRI network"
        with torch.inference_mode():
            subject = Subject(model, card, options.device, options.threads, options.repeats)
            found = rates(subject)
            print(report(subject, found), flush=True)
            if options.picture is not None and name == options.models[0] and options.device.type == "cpu":
                peak = statistics.median(next(iter(found.values())))
                draw(parts(subject, found), peak, memory_bandwidth(), options.picture)
    return 0


def report(subject: Subject, found: Times) -> str:
    """All parts for one network, whose rates were found before."""
    return "\n\n".join([
        f"## {subject.card.name}", introduction(subject),
        markdown(("", "GFLOP/s", "of the first"), rate_rows(found)),
        markdown(("one volume, 2 mm to 1 mm, whole head", "seconds", "times ours"), one_volume(subject, found)),
        f"Largest difference between values by `grid_sample` and ours: {difference(subject):.1e}.",
        markdown(("the time grows with", "power"), exponents(subject)),
        markdown(("cubic interpolation of one volume, 2 mm to 1 mm", "seconds", "times ours"), interpolations(subject)),
    ])  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
