"""Simulated scans to train on: heads that do not exist, measured almost without noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_sr.degradation import add_rician_noise, degrade
from bids_sr.demo.acquisition import random_rigid, spread_directions
from bids_sr.demo.phantom import Phantom
from bids_sr.dwi.t1w import refined_t1w
from bids_sr.errors import TrainingDataError
from bids_sr.geometry import Grid
from bids_sr.training.anatomy import random_head
from bids_sr.training.packing import PackedScan, pack_scan

Float = NDArray[np.float32]
Range = tuple[float, float]

#: Box around every head that can be made, in mm in MNI space.
HEAD_BOX = ((-80.0, 80.0), (-116.0, 82.0), (-76.0, 92.0))
#: A head is made on voxels this many times as fine as those of its scan.
OVERSAMPLING = 2
#: Full width at half maximum of the point-spread functions of a scan, in its voxels.
PSF_WIDTH: Range = (0.8, 1.1)
#: How often a scan may have a second shell, and by how much (s/mm2) it differs at least.
TWO_SHELLS, LEAST_GAP = 0.4, 500.0
#: Voxel size of T1w images in mm, and their noise, where white matter has 1.
T1W_VOXEL: Range = (0.8, 1.2)
T1W_NOISE: Range = (0.01, 0.05)
#: Distance from the centre, in mm, at which misregistration is measured.
HEAD_RADIUS = 80.0
#: Volumes up to this b-value (s/mm2) are b0.
B0_THRESHOLD = 50.0


@dataclass(frozen=True)
class SimulationSettings:
    """How scans are simulated. Ranges are drawn from uniformly, once per scan.

    Attributes
    ----------
    voxel_size : tuple of float, (2,)
        Edge of the cubic voxels in mm. Each voxel sees the head through a Gaussian about as wide as itself.
    n_voxels : int
        Largest number of voxels of a scan; of a head that needs more, a random part is scanned.
    n_b0, n_directions : int
        Volumes of a scan. Now and then the directions belong to two shells.
    bval : tuple of float, (2,)
        b-values of the weighted volumes, s/mm2; their logarithm is drawn, since low ones are more common.
    snr : tuple of float, (2,)
        Median brightness of the brain in a b0 volume over the standard deviation of the noise. High, since the scan is
        the truth that a model learns; noise belongs into what the model is shown.
    misregistration : float
        Largest displacement, in mm at 80 mm from the centre, that remains between T1w and dMRI.
    odd_t1w_share : float
        Share of the scans whose T1w has another contrast: reversed, or bent by a random power. Models then learn to
        use its borders without relying on its brightness.
    """

    voxel_size: Range = (1.0, 2.0)
    n_voxels: int = 550_000
    n_b0: int = 2
    n_directions: int = 12
    bval: Range = (700.0, 3000.0)
    snr: Range = (60.0, 150.0)
    misregistration: float = 0.5
    odd_t1w_share: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises
        ------
        TrainingDataError
            If a range is empty or a number out of bounds.
        """
        bounds = {
            "voxel_size": (0.5, 4.0),
            "bval": (100.0, 10_000.0),
            "snr": (1.0, np.inf),
            "misregistration": (0.0, 20.0),
            "odd_t1w_share": (0.0, 1.0),
            "n_b0": (1, 1000),
            "n_directions": (6, 1000),
            "n_voxels": (1000, np.inf),
        }
        for name, (least, most) in bounds.items():
            low, high = np.broadcast_to(getattr(self, name), 2)
            if not least <= low <= high <= most:
                raise TrainingDataError(
                    where="simulated scans",
                    problem=f"{name} is {low:g} to {high:g}, but must lie in {least:g} to {most:g}",
                )


def simulate_scans(
    count: int, seed: int, settings: SimulationSettings, tell: Callable[[str], None] = lambda line: None
) -> Iterator[PackedScan]:
    """Scans number 0 to `count` - 1 of a seed, one at a time; `tell` is given one line for each.

    Raises
    ------
    MissingExtraError
        If nilearn, which carries the average brain, is not installed.
    """
    for number in range(count):
        scan = simulate_scan(number, seed, settings)
        shape = " x ".join(str(n) for n in scan.mask.shape)
        tell(f"{scan.name}: {shape} voxels of {scan.voxel_sizes[0]:.2f} mm, {len(scan.data)} volumes")
        yield scan


def simulate_scan(number: int, seed: int, settings: SimulationSettings) -> PackedScan:
    """A scan of a head that does not exist, with its T1w; the same for the same seed and number.

    Parameters
    ----------
    number : int
        Which of the scans of this seed, at least 0.
    seed : int
        At least 0.
    settings : SimulationSettings

    Raises
    ------
    MissingExtraError
        If nilearn, which carries the average brain, is not installed.
    """
    random = np.random.default_rng([seed, number])
    grid = random_field_of_view(settings, random)
    head = random_head(grid.scaled(np.full(3, float(OVERSAMPLING))), random)
    return scan_head(f"simulated-{seed}-{number}", head, grid, settings, random)


def random_field_of_view(settings: SimulationSettings, random: np.random.Generator) -> Grid:
    """The grid of a scan in MNI space: the whole head, or a part of it as large as the settings allow."""
    size = random.uniform(*settings.voxel_size)
    low, high = np.array(HEAD_BOX).T
    whole = np.ceil((high - low) / size)
    share = min(1.0, (settings.n_voxels / np.prod(whole)) ** (1 / 3))
    shape = np.floor(whole * share).astype(int)
    start = low + size * random.uniform(0, whole - shape)
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = start + size / 2
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def scan_head(
    name: str, head: Phantom, grid: Grid, settings: SimulationSettings, random: np.random.Generator
) -> PackedScan:
    """Measure a head with random b-values, directions and T1w contrast.

    Parameters
    ----------
    name : str
        Of the scan.
    head : Phantom
        On a grid, finer than `grid`, of the same box; so is its T1w.
    grid : Grid
        Of the scan.
    settings : SimulationSettings
    random : numpy.random.Generator

    Raises
    ------
    TrainingDataError
        If there is no brain in the field of view.
    """
    bvals, directions = random_gradients(settings, random)
    width = random.uniform(*PSF_WIDTH)
    scale = np.divide(head.grid.shape, grid.shape)
    mask = degrade(head.mask.astype(np.float32), head.grid, scale, profile="box")[0] > 0.5
    if not mask.any():
        raise TrainingDataError(where=name, problem="no brain in the field of view")
    series = np.empty((*grid.shape, len(bvals)), np.float32)
    for volume, (bval, direction) in enumerate(zip(bvals, directions, strict=True)):
        series[..., volume], _ = degrade(head.signal(float(bval), direction), head.grid, scale, width)
    sigma = float(np.median(series[mask, 0])) / random.uniform(*settings.snr)
    t1w, t1w_grid = random_t1w(head, settings, random)
    return pack_scan(
        name,
        add_rician_noise(series, sigma, random),
        bvals,
        mask,
        B0_THRESHOLD,
        voxel_sizes=grid.voxel_sizes,
        t1w=refined_t1w(t1w, t1w_grid, grid, mask),
        simulated=True,
        bvecs=directions,
    )


def random_gradients(
    settings: SimulationSettings, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """b-values, (n,), in s/mm2 and directions, (n, 3), of a series: b0 volumes, then one shell or two.

    Directions are spread evenly over each shell and turned at random.
    """
    low, high = np.log(settings.bval)
    b_values = np.exp(random.uniform(low, high, 2))
    two = random.random() < TWO_SHELLS and np.ptp(b_values) > LEAST_GAP and settings.n_directions >= 12
    counts = [settings.n_directions // 2, (settings.n_directions + 1) // 2] if two else [settings.n_directions]
    bvals, directions = [np.zeros(settings.n_b0)], [np.zeros((settings.n_b0, 3))]
    for bval, count in zip(b_values, counts, strict=False):
        turn, _ = np.linalg.qr(random.standard_normal((3, 3)))
        bvals.append(np.full(count, bval))
        directions.append(spread_directions(count) @ turn)
    return np.concatenate(bvals), np.concatenate(directions)


def random_t1w(head: Phantom, settings: SimulationSettings, random: np.random.Generator) -> tuple[Float, Grid]:
    """The T1w of a head, noisy, on voxels of about 1 mm, and the grid where it is believed to lie."""
    image = np.clip(head.t1w / np.percentile(head.t1w[head.mask], 99.5), 0, 1.5)
    if random.random() < settings.odd_t1w_share:
        image = image ** np.float32(np.exp(random.uniform(-0.7, 0.7)))
        image = np.where(random.random() < 0.5, 1.5 - image, image)
    scale = np.maximum(1.0, random.uniform(*T1W_VOXEL) / head.grid.voxel_sizes)
    low, grid = degrade(image, head.grid, scale, random.uniform(*PSF_WIDTH))
    noisy = add_rician_noise(low, random.uniform(*T1W_NOISE), random)
    total = random.uniform(0, settings.misregistration)
    shift = random.uniform(0, total)
    centre = grid.affine[:3, :3] @ (np.subtract(grid.shape, 1) / 2) + grid.affine[:3, 3]
    motion = random_rigid(float(np.rad2deg((total - shift) / HEAD_RADIUS)), shift, centre, random)
    return noisy, Grid(grid.shape, motion @ grid.affine)
