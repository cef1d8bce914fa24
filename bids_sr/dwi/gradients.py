"""The diffusion weighting of a series: b-values and b-vectors as the files hold them, and what they allow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_sr.errors import (
    GradientCountError,
    GradientDirectionsError,
    GradientFileError,
    GradientNormError,
    GradientValueError,
    LargeBValueError,
    NoB0Error,
    NoWeightedVolumeError,
)

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

#: Two b-values further apart than this (s/mm2) belong to different shells. Scanners spread one shell by up to about
#: 50 s/mm2 (imaging gradients and rounding); the closest shells in use are about 200 s/mm2 apart.
SHELL_GAP = 100.0
#: How far the b-values of one shell may be apart (s/mm2): twice what scanners spread them, either way.
SHELL_WIDTH = 200.0

#: How far a b-vector may be from unit length. Rounding moves it by 0.001; a length of 0.9 is a different encoding.
NORM_TOLERANCE = 0.1


#: The strongest gradients in use reach about 40000 s/mm2; s/m2 start at 1000000.
LARGEST_BVAL = 1e5


@dataclass(frozen=True)
class Gradients:
    """The diffusion weighting of each volume, exactly as the files hold it.

    Attributes
    ----------
    bvals : ndarray, (n,)
        b-values in s/mm2.
    bvecs : ndarray, (n, 3)
        Directions in the FSL convention (along the voxel axes, x flipped where the affine's determinant is positive).
        Rows of volumes without diffusion weighting may be zero or NaN.
    """

    bvals: NDArray[np.float64]
    bvecs: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of volumes."""
        return len(self.bvals)

    def subset(self, volumes: NDArray[np.integer] | NDArray[np.bool_]) -> Gradients:
        """The gradients of the chosen `volumes` (indices or a mask)."""
        return Gradients(self.bvals[volumes], self.bvecs[volumes])


def read_gradients(bval_file: Path, bvec_file: Path) -> Gradients:
    """Read a pair of FSL gradient files.

    Parameters
    ----------
    bval_file : Path
        n b-values in s/mm2, in one row (or one column).
    bvec_file : Path
        Three rows of n columns; n rows of three columns are understood too, except where n is 3.

    Returns
    -------
    Gradients
        The values as written. Counts are not compared here, see `check_gradients`.

    Raises
    ------
    GradientFileError
        If a file is not a rectangle of numbers or the vectors do not have three components.
    """
    bvals = read_bvals(bval_file)
    bvecs = _read_numbers(bvec_file)
    if 3 not in bvecs.shape:
        raise GradientFileError(
            file=bvec_file, problem=f"{bvecs.shape[0]} rows of {bvecs.shape[1]} where three are expected"
        )
    return Gradients(bvals, bvecs.T if bvecs.shape[0] == 3 else bvecs)


def read_bvals(file: Path) -> NDArray[np.float64]:
    """The b-values of an FSL file, one row or one column, (n,), in s/mm2.

    Raises
    ------
    GradientFileError
        If the file is not one row or column of numbers.
    """
    bvals = _read_numbers(file)
    if min(bvals.shape) != 1:
        raise GradientFileError(file=file, problem=f"{bvals.shape[0]} rows of {bvals.shape[1]} where one is expected")
    return bvals.ravel()


def _read_numbers(file: Path) -> NDArray[np.float64]:
    """All numbers of a text file, (rows, columns); blanks, tabs and commas separate them."""
    try:
        lines = file.read_text(encoding="utf-8-sig").replace(",", " ").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except OSError as error:
        raise GradientFileError(file=file, problem=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise GradientFileError(file=file, problem="it is not text") from error
    except ValueError as error:
        raise GradientFileError(file=file, problem=str(error)[:200]) from error
    if not rows:
        raise GradientFileError(file=file, problem="it is empty")
    if len({len(row) for row in rows}) != 1:
        raise GradientFileError(file=file, problem="its rows differ in length")
    return np.array(rows, dtype=np.float64)


def is_b0(bvals: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Which volumes count as free of diffusion weighting: those with b <= `threshold` s/mm2, (n,)."""
    return np.asarray(bvals) <= threshold


def shells(bvals: NDArray[np.float64], threshold: float) -> NDArray[np.int64]:
    """Number of the shell of each volume, (n,): 0 for b0, then 1, 2, ... in order of increasing b-value.

    A new shell starts where the sorted b-values jump by `SHELL_GAP` or more, and where one would become wider than
    `SHELL_WIDTH`: the steps of a scheme of many small ones would join to a single shell of all.
    """
    bvals = np.asarray(bvals, dtype=np.float64)
    labels = np.zeros(len(bvals), dtype=np.int64)
    weighted = np.flatnonzero(~is_b0(bvals, threshold))
    order = weighted[np.argsort(bvals[weighted], kind="stable")]
    number, lowest, previous = 0, -np.inf, -np.inf
    for volume in order:
        bval = bvals[volume]
        if bval - previous >= SHELL_GAP or bval - lowest > SHELL_WIDTH:
            number, lowest = number + 1, bval
        labels[volume], previous = number, bval
    return labels


def tensor_rank(bvecs: NDArray[np.float64]) -> int:
    """How many of the six tensor elements the directions `bvecs`, (n, 3), determine."""
    if len(bvecs) == 0:
        return 0
    x, y, z = np.asarray(bvecs, dtype=np.float64).T
    design = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    return int(np.linalg.matrix_rank(design, tol=1e-2))


def spread_out(axes: NDArray[np.float64]) -> NDArray[np.int64]:
    """An order of axes, (n, 3), in which each is as far as can be from the nearest before it, the first being first."""
    nearest = np.zeros(len(axes))
    order: list[int] = []
    for _ in axes:
        following = int(np.argmin(nearest))
        order.append(following)
        nearest = np.maximum(nearest, np.abs(axes @ axes[following]))
        nearest[order] = np.inf
    return np.array(order, dtype=np.int64)


def check_gradients(gradients: Gradients, n_volumes: int, b0_threshold: float, dwi_name: str) -> None:
    """Refuse gradients that cannot belong to the series or cannot give a diffusion tensor.

    Parameters
    ----------
    gradients : Gradients
    n_volumes : int
        Volumes in the series.
    b0_threshold : float
        Largest b-value (s/mm2) that counts as b0.
    dwi_name : str
        The series' file, for the messages.

    Raises
    ------
    GradientCountError
        Number of b-values, b-vectors and volumes differ.
    GradientValueError
        A b-value is negative, infinite or NaN.
    LargeBValueError
        A b-value is so large that it must be in another unit.
    NoB0Error
        No volume is free of diffusion weighting.
    NoWeightedVolumeError
        All volumes are.
    GradientNormError
        The b-vector of a weighted volume is not a unit vector (zero and NaN included).
    GradientDirectionsError
        The directions do not determine the six elements of a tensor.
    """
    counts = (len(gradients.bvals), len(gradients.bvecs), n_volumes)
    if len(set(counts)) != 1:
        raise GradientCountError(dwi=dwi_name, n_bvals=counts[0], n_bvecs=counts[1], n_volumes=n_volumes)
    wrong = ~np.isfinite(gradients.bvals) | (gradients.bvals < 0)
    if wrong.any():
        volume = int(np.argmax(wrong))
        raise GradientValueError(dwi=dwi_name, volume=volume, bval=gradients.bvals[volume])
    if gradients.bvals.max() > LARGEST_BVAL:
        volume = int(np.argmax(gradients.bvals))
        raise LargeBValueError(dwi=dwi_name, volume=volume, bval=gradients.bvals[volume])
    b0 = is_b0(gradients.bvals, b0_threshold)
    if not b0.any():
        raise NoB0Error(dwi=dwi_name, lowest=gradients.bvals.min(), threshold=b0_threshold)
    if b0.all():
        raise NoWeightedVolumeError(dwi=dwi_name, threshold=b0_threshold, largest=gradients.bvals.max())
    _check_directions(gradients, ~b0, dwi_name)


def _check_directions(gradients: Gradients, weighted: NDArray[np.bool_], dwi_name: str) -> None:
    """Unit length and at least six independent directions among the `weighted` volumes."""
    norms = np.linalg.norm(gradients.bvecs, axis=1)
    # Written so that NaN counts as wrong.
    wrong = weighted & ~(np.abs(norms - 1) <= NORM_TOLERANCE)
    if wrong.any():
        volume = int(np.argmax(wrong))
        raise GradientNormError(dwi=dwi_name, volume=volume, bval=gradients.bvals[volume], norm=norms[volume])
    rank = tensor_rank(gradients.bvecs[weighted])
    if rank < 6:
        raise GradientDirectionsError(dwi=dwi_name, n_weighted=int(weighted.sum()), rank=rank)


def dipy_table(gradients: Gradients, threshold: float) -> GradientTable:
    """The DIPY gradient table of `gradients`.

    Vectors of b0 volumes become zero (files hold zeros, NaN or leftovers there), those of weighted volumes exactly
    unit length, so that rounding in the file does not scale the diffusivities.
    """
    from dipy.core.gradients import gradient_table

    b0 = is_b0(gradients.bvals, threshold)
    bvecs = np.zeros_like(gradients.bvecs)
    bvecs[~b0] = gradients.bvecs[~b0] / np.linalg.norm(gradients.bvecs[~b0], axis=1, keepdims=True)
    return gradient_table(gradients.bvals, bvecs=bvecs, b0_threshold=threshold)
