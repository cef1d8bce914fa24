"""Signals free of the units of scanner, echo time and b-value: each shell is measured by its level in the brain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.b0 import Series
from bids_sr.dwi.gradients import shells
from bids_sr.errors import NoSignalError


@dataclass(frozen=True)
class ShellContext:
    """What all volumes of a series share: the mean image and the level of each shell, b0 being shell 0.

    Attributes
    ----------
    shells : ndarray of int, (n,)
        Shell of each volume.
    means : ndarray, (n_shells, x, y, z), float32
        Mean volume of each shell, in units of its level.
    levels : ndarray, (n_shells,)
        Median of the mean volume inside the brain, in the units of the scan.
    """

    shells: NDArray[np.int64]
    means: NDArray[np.float32]
    levels: NDArray[np.float64]

    def channels(self, volume: NDArray[np.floating], index: int) -> NDArray[np.float32]:
        """What a model is shown to restore one volume: itself, the mean b0 and the mean of its shell.

        Parameters
        ----------
        volume : ndarray, (x, y, z)
            As acquired.
        index : int
            Which volume of the series it is.

        Returns
        -------
        channels : ndarray, (3, x, y, z), float32
        """
        shell = int(self.shells[index])
        companion = companion_shell(shell, len(self.means))
        normalized = np.nan_to_num(volume, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32) / self.levels[shell]
        return np.stack([normalized, self.means[0], self.means[companion]]).astype(np.float32, copy=False)

    def level(self, index: int) -> float:
        """What a restored volume is multiplied by to be in the units of the scan again."""
        return float(self.levels[self.shells[index]])


def companion_shell(shell: int, n_shells: int) -> int:
    """The shell whose mean is shown next to a volume of `shell`: its own.

    A b0 volume gets the lowest weighted shell, which has the best signal of those that tell white matter from grey.
    """
    return shell if shell > 0 else min(1, n_shells - 1)


def shell_context(
    data: Series, bvals: NDArray[np.float64], mask: NDArray[np.bool_], b0_threshold: float
) -> ShellContext:
    """Read a series once, volume by volume, and gather what its volumes share.

    A signal divided voxel by voxel by the b0, as in Wu et al. 2024, is unbounded where the b0 is near zero, and
    interpolates to something other than the ratio of the interpolated signals; one level per shell has neither fault
    and is undone exactly.

    Parameters
    ----------
    data : array or array proxy, (x, y, z, n)
    bvals : ndarray, (n,)
        b-values in s/mm2.
    mask : ndarray of bool, (x, y, z)
        The brain.
    b0_threshold : float
        Largest b-value, in s/mm2, that counts as b0.

    Raises
    ------
    NoSignalError
        If the median of a shell inside the mask is not positive.
    """
    labels = shells(bvals, b0_threshold)
    means = np.zeros((int(labels.max()) + 1, *data.shape[:3]), np.float32)
    counts = np.bincount(labels)
    for index, shell in enumerate(labels):
        volume = np.asarray(data[..., index], dtype=np.float32)
        means[shell] += np.nan_to_num(volume, nan=0.0, posinf=0.0, neginf=0.0) / counts[shell]
    levels = np.array([float(np.median(mean[mask])) for mean in means])
    if not np.all(levels > 0):
        shell = int(np.argmin(levels > 0))
        raise NoSignalError(shell="b0" if shell == 0 else f"{bvals[labels == shell].mean():.0f}")
    means /= levels[:, None, None, None].astype(np.float32)
    return ShellContext(labels, means, levels)
