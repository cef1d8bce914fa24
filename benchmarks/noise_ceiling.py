"""How close the noise of an acquired scan lets any restoration come to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.gradients import Gradients, shells
from bids_sr.dwi.noise import noise_sd, on_grid
from bids_sr.evaluation.benchmark import Reference, compare_tensors

#: Directions of a shell that are this parallel, as |cosine|, are one direction measured twice.
LEAST_COSINE = 0.9999
#: Of the weighted volumes, so many must be repeated for their differences to speak for the scan.
LEAST_REPEATED = 0.5
#: The noise that is added once more is the same in every run.
SEED = 0


@dataclass(frozen=True)
class Ceiling:
    """What a restoration that gave the scan without its noise would reach when it is compared with the scan.

    Attributes
    ----------
    source : str
        What the noise was told from.
    psnr : float
        Mean over weighted volumes of 20 log10(range in the brain / root mean square noise), dB.
    fa_error, md_error : float
        By how much noise of this size moves FA and MD (mm2/s); not a number where that was not tried.
    """

    source: str
    psnr: float
    fa_error: float = float("nan")
    md_error: float = float("nan")


def ceilings(reference: Reference) -> list[Ceiling]:
    """Every estimate that a series allows: from what smooth functions of the direction leave, and from repeats."""
    found = [from_residuals(reference), from_repeats(reference)]
    return [ceiling for ceiling in found if ceiling is not None]


def from_residuals(reference: Reference) -> Ceiling | None:
    """From what a smooth function of the direction leaves of the signals of each shell, see `bids_sr.dwi.noise`.

    The errors of FA and MD are those of the scan with noise of this size added once more, against the scan as it is.
    None where no shell has volumes enough to tell.
    """
    sd = weighted_noise(reference)
    if sd is None:
        return None
    reached = [
        _psnr(reference.data[..., v][reference.mask], float(np.mean(sd[:, v] ** 2)))
        for v in np.flatnonzero(reference.weighted)
    ]
    random, noisier = np.random.default_rng(SEED), reference.data.copy()
    for volume in range(noisier.shape[-1]):
        noise = sd[:, volume] * random.standard_normal(len(sd), dtype=np.float32)
        noisier[..., volume] = np.abs(noisier[..., volume] + on_grid(noise, reference.mask))
    tensor = compare_tensors(reference, noisier)
    return Ceiling("residuals", float(np.mean(reached)), tensor.fa_error, tensor.md_error)


def weighted_noise(reference: Reference) -> NDArray[np.float32] | None:
    """Standard deviation of the noise in each voxel of the mask and each volume, (n_voxels, n).

    Shells of too few volumes to tell, and b0 volumes, count as having that of the lowest shell that tells.
    """
    shell = shells(reference.gradients.bvals, reference.b0_threshold)
    found: dict[int, NDArray[np.float32]] = {}
    for number in range(1, int(shell.max()) + 1):
        members = shell == number
        sd = noise_sd(reference.data[reference.mask][:, members], reference.gradients.bvecs[members], reference.mask)
        if sd is not None:
            found[number] = sd
    if not found:
        return None
    lowest = found[min(found)]
    return np.stack([found.get(int(number), lowest) for number in shell], axis=1)


def from_repeats(reference: Reference) -> Ceiling | None:
    """From the differences of volumes that repeat each other, half of whose mean square is that of one's noise.

    Motion and drift between the two count as noise. None where fewer than `LEAST_REPEATED` of the weighted volumes are
    repeated.
    """
    if not is_repeated(reference.gradients, reference.b0_threshold):
        return None
    reached = []
    for pair in repeats(reference.gradients, reference.b0_threshold):
        one, other = (reference.data[..., volume][reference.mask] for volume in pair)
        noise = float(np.mean((one.astype(np.float64) - other) ** 2)) / 2
        reached += [_psnr(one, noise), _psnr(other, noise)]
    return Ceiling("repeats", float(np.mean(reached)))


def is_repeated(gradients: Gradients, b0_threshold: float) -> bool:
    """Whether of the weighted volumes at least `LEAST_REPEATED` are repeated."""
    n_weighted = int(np.sum(gradients.bvals > b0_threshold))
    return 2 * len(repeats(gradients, b0_threshold)) >= max(1, LEAST_REPEATED * n_weighted)


def repeats(gradients: Gradients, b0_threshold: float) -> list[tuple[int, int]]:
    """Pairs of weighted volumes of one shell and direction, each volume in one pair at most."""
    axes = np.nan_to_num(gradients.bvecs)
    shell = shells(gradients.bvals, b0_threshold)
    left: list[int] = np.flatnonzero(shell > 0).tolist()
    pairs = []
    while left:
        first = left.pop(0)
        same = [v for v in left if shell[v] == shell[first] and abs(axes[v] @ axes[first]) > LEAST_COSINE]
        if same:
            left.remove(same[0])
            pairs.append((first, same[0]))
    return pairs


def _psnr(truth: NDArray[np.floating], noise: float) -> float:
    """PSNR in dB of what differs from a volume's intensities in the brain by noise of this mean square."""
    return float(20 * np.log10(np.ptp(truth)) - 10 * np.log10(noise))


def definition(found: Sequence[Ceiling]) -> str:
    """What the rows of a table of ceilings mean."""
    lines = [
        "The truth is an acquired scan, whose noise no restoration can foresee. One that gave the scan without its "
        "noise would reach this PSNR, the mean over the weighted volumes of 20 log10(range in the brain / root mean "
        "square noise).\n",
        "- residuals: the noise is what polynomials of the direction leave of a shell's signals, in each voxel "
        "(`bids_sr.dwi.noise`). Signals that no such polynomial follows count as noise, so this may be too low. FA and "
        "MD error: the tensor of the scan with noise of this size added once more, against that of the scan as it is. "
        "Where FA is small, noise that is there already hides a part of it.",
    ]
    if any(ceiling.source == "repeats" for ceiling in found):
        lines.append(
            "- repeats: the noise is the difference of volumes of one direction over the root of two; motion and drift "
            "between them count."
        )
    return "\n".join(lines)
