"""The T1w that guides the restoration of a training patch: real or made, where it belongs or not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_sr.dwi.t1w import LARGEST
from bids_sr.errors import TrainingDataError
from bids_sr.training.packing import PackedScan
from bids_sr.training.pseudo_t1w import VERSIONS
from bids_sr.training.sampling import Sampling

#: The 3 x 3 x 3 voxels around one, (27, 3), the last axis fastest.
NEIGHBOURS = np.indices((3, 3, 3)).reshape(3, -1).T - 1
#: Intensities between which a warped contrast is linear, and the standard deviation of what is added to each.
KNOTS = np.linspace(0, LARGEST, 6)
WARP = 0.12
#: The intensity that 0 becomes in an inverted contrast; the background, below `BACKGROUND`, stays dark.
INVERTED_FROM, BACKGROUND = 1.2, 0.05


@dataclass(frozen=True)
class GuideSettings:
    """What a guiding T1w is in training; shares are of the patches that show one.

    An application meets T1w images that are misplaced by the distortions of the diffusion scan, of another contrast,
    or plainly wrong. A model that never saw such would trust each of them.

    Attributes
    ----------
    made : float
        Share of the patches of acquired scans that show a picture made from the scan instead of its T1w. Scans without
        a T1w always do; where the share is 0 they show none. Simulated scans show their own.
    loose_share : float
        Share of the patches whose T1w is shifted like by distortions; it is off by the registration's error in the
        others.
    tight, loose : float
        Standard deviation, along each axis, of the two shifts, in voxels of the scan.
    displaced : float
        Share of the patches whose T1w is shifted by up to `displacement` voxels of the scan along each axis instead.
    displacement : float
    swapped : float
        Share of the patches that show the T1w of another scan.
    warped, inverted : float
        Shares of the patches with a warped contrast, and with one that is turned into its opposite besides.

    Raises
    ------
    TrainingDataError
        If a value cannot be used.
    """

    made: float = 0.67
    loose_share: float = 0.35
    tight: float = 0.15
    loose: float = 0.6
    displaced: float = 0.06
    displacement: float = 2.5
    swapped: float = 0.06
    warped: float = 0.23
    inverted: float = 0.07

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("made", "loose_share", "displaced", "swapped", "warped", "inverted"):
            if not 0 <= getattr(self, name) <= 1:
                problem = f"{name} = {getattr(self, name)} is not between 0 and 1"
                raise TrainingDataError(where="[patches.guide]", problem=problem)
        for name in ("tight", "loose", "displacement"):
            if getattr(self, name) < 0:
                problem = f"{name} = {getattr(self, name)} is negative"
                raise TrainingDataError(where="[patches.guide]", problem=problem)
        for first, second in (("displaced", "swapped"), ("warped", "inverted")):
            if getattr(self, first) + getattr(self, second) > 1:
                raise TrainingDataError(
                    where="[patches.guide]", problem=f"{first} and {second} are more than 1 together"
                )


#: The T1w of each scan as it is, as validations show it; none where there is none.
FAITHFUL = GuideSettings(made=0, loose_share=0, tight=0, displaced=0, swapped=0, warped=0, inverted=0)


@dataclass(frozen=True)
class ShownT1w:
    """A T1w as it lies over a scan.

    Attributes
    ----------
    fine : ndarray, (x * k0, y * k1, z * k2)
        Scaled like `bids_sr.dwi.t1w.refined_t1w`.
    coarse : ndarray, (x, y, z)
        Through the voxels of the scan.
    shift : ndarray, (3,)
        What is seen at a voxel of the scan lies so many of its voxels further on in the T1w.
    curve : ndarray, (6,)
        What the intensities at `KNOTS` are shown as.
    """

    fine: NDArray[np.floating]
    coarse: NDArray[np.floating]
    shift: NDArray[np.float64]
    curve: NDArray[np.float64]

    def in_half_voxels(self, sampling: Sampling) -> NDArray[np.float32]:
        """Through voxels of half the size of a patch's, two along each axis of each: (2p, 2p, 2p)."""
        x, y, z = np.floor_divide(self.fine.shape, self.coarse.shape)
        origin = sampling.origin + self.shift - sampling.scale / 4
        halves = replace(
            sampling, n=2 * sampling.n, origin=origin, scale=sampling.scale / 2, profiles=("gaussian",) * 3, width=1.0
        )
        return self._contrast(halves.of([self.fine], (x, y, z))[0])

    def around(self, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
        """At the neighbours of voxels, (Q, 3): (Q, 3, 3, 3). Beyond the scan it is 0."""
        places = (voxels[:, None] + NEIGHBOURS + self.shift).reshape(-1, 3)
        low = np.clip(np.floor(places.min(axis=0)).astype(int), 0, np.subtract(self.coarse.shape, 1))
        high = np.ceil(places.max(axis=0)).astype(int) + 1
        box = tuple(slice(start, max(stop, start + 1)) for start, stop in zip(low, high, strict=True))
        part = self.coarse[box].astype(np.float32)
        values = ndimage.map_coordinates(part, (places - low).T, order=1, mode="constant")
        return self._contrast(values).reshape(-1, 3, 3, 3)

    def _contrast(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Intensities as they are shown."""
        return np.interp(values, KNOTS, self.curve).astype(np.float32)


def draw_t1w(
    scan: PackedScan, others: Sequence[PackedScan], settings: GuideSettings, random: np.random.Generator
) -> ShownT1w | None:
    """A T1w to show with a patch.

    Parameters
    ----------
    scan : PackedScan
        Of the patch.
    others : sequence of PackedScan
        Whose T1w may take the place of its own.
    settings : GuideSettings
    random : numpy.random.Generator

    Returns
    -------
    t1w : ShownT1w or None
        None where there is none.
    """
    fate = random.random()
    swapped = fate < settings.swapped and len(others) > 0
    images = _draw_images(others[int(random.integers(len(others)))] if swapped else scan, settings, random)
    if images is None:
        return None
    displaced = settings.swapped <= fate < settings.swapped + settings.displaced
    return ShownT1w(*images, _draw_shift(displaced, settings, random), _draw_curve(settings, random))


def _draw_images(
    scan: PackedScan, settings: GuideSettings, random: np.random.Generator
) -> tuple[NDArray[np.floating], NDArray[np.floating]] | None:
    """A scan's T1w, or a picture made from it, on fine voxels and on those of the scan."""
    made = not scan.simulated and (random.random() < settings.made or (scan.t1w is None and settings.made > 0))
    if made:
        picture = scan.pseudo_t1ws.version(int(random.integers(VERSIONS)))
        return picture, picture
    return None if scan.t1w is None or scan.coarse_t1w is None else (scan.t1w, scan.coarse_t1w)


def _draw_shift(displaced: bool, settings: GuideSettings, random: np.random.Generator) -> NDArray[np.float64]:
    """How far a T1w is off, (3,)."""
    if displaced:
        return random.uniform(-settings.displacement, settings.displacement, 3)
    loose = random.random() < settings.loose_share
    return random.normal(0, settings.loose if loose else settings.tight, 3)


def _draw_curve(settings: GuideSettings, random: np.random.Generator) -> NDArray[np.float64]:
    """What intensities are shown as, (6,)."""
    fate = random.random()
    if fate >= settings.warped + settings.inverted:
        return KNOTS
    warped = np.clip(KNOTS + random.normal(0, WARP, len(KNOTS)), 0, LARGEST)
    warped[0] = 0
    if fate >= settings.inverted:
        return warped
    return np.where(KNOTS > BACKGROUND, np.clip(INVERTED_FROM - warped, 0, LARGEST), 0)
