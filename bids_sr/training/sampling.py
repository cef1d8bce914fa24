"""Where the voxels of a training patch lie in a scan, and how patches are turned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_sr.degradation import Profile, sampling_matrix
from bids_sr.geometry import apply_along_axes

#: Weights of a sampling that count as nothing: float16, in which scans are packed, has steps of 5e-4.
NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Sampling:
    """Where the voxels of a patch lie in the scan, and how they see it.

    Attributes
    ----------
    n : int
        Voxels per axis.
    origin, scale : ndarray, (3,)
        Centre of the first voxel, and distance of neighbours, in voxels of the scan.
    profiles : tuple of Profile, (3,)
    width : float
        Of the profiles, in voxels of the patch.
    """

    n: int
    origin: NDArray[np.float64]
    scale: NDArray[np.float64]
    profiles: tuple[Profile, ...]
    width: float

    def part_and_weights(self, axis: int, n_source: int, fine: int) -> tuple[slice, NDArray[np.float32]]:
        """The source voxels of one axis that the patch sees, and its weights of them, (n, voxels).

        `fine` is how many source voxels there are per voxel of the scan. Beyond the source there is no signal.
        """
        ratio = self.scale[axis] * fine
        centres = (self.origin[axis] + 0.5) * fine - 0.5 + ratio * np.arange(self.n)
        profile, first = self.profiles[axis], 0
        if profile == "zoom":
            first = round(centres[0] - (ratio - 1) / 2)
            weights = sampling_matrix(profile, round(self.n * ratio), centres, ratio)
        else:
            weights = sampling_matrix(profile, n_source, centres, ratio, self.width)
            weights[(centres < -0.5) | (centres > n_source - 0.5)] = 0
        seen = np.flatnonzero(np.abs(weights).max(axis=0) > NEGLIGIBLE) + first
        seen = seen[(seen >= 0) & (seen < n_source)]
        if len(seen) == 0:
            return slice(0, 1), np.zeros((self.n, 1), np.float32)
        return slice(int(seen[0]), int(seen[-1]) + 1), weights[:, seen[0] - first : seen[-1] + 1 - first]

    def of(
        self, volumes: Sequence[NDArray[np.generic]], fine: tuple[int, int, int] = (1, 1, 1)
    ) -> list[NDArray[np.float32]]:
        """The patch of each volume, (x, y, z), all of one shape, whose voxels are `fine` times as fine as the scan."""
        sides = [self.part_and_weights(axis, volumes[0].shape[axis], fine[axis]) for axis in range(3)]
        box, matrices = tuple(side[0] for side in sides), [side[1] for side in sides]
        return [apply_along_axes(volume[box].astype(np.float32), matrices) for volume in volumes]


@dataclass(frozen=True)
class Turn:
    """A permutation and flips of the axes; magnitudes of single directions allow them."""

    order: NDArray[np.int64]
    flipped: NDArray[np.bool_]

    @classmethod
    def draw(cls, random: np.random.Generator) -> "Turn":
        """Any of the 48, with the same probability."""
        return cls(random.permutation(3), random.random(3) < 0.5)

    def of_volumes(self, volumes: NDArray[np.generic]) -> NDArray[np.generic]:
        """Volumes, (n, x, y, z), turned."""
        permuted = volumes.transpose(0, *(self.order + 1))
        return np.ascontiguousarray(np.flip(permuted, tuple(np.flatnonzero(self.flipped) + 1)))

    def of_points(self, points: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """Points, (Q, 3), in a patch of n voxels per axis, turned with it."""
        permuted = points[:, self.order]
        return np.where(self.flipped, n - 1 - permuted, permuted)
