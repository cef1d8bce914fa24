"""The rigid motion between a T1w and a dMRI series of the same head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from bids_sr.dwi.mask import block_average
from bids_sr.errors import T1wRegistrationError
from bids_sr.geometry import canonical_affine, to_canonical

#: Voxel sizes (mm) of the search, of its refinement, and of the last alignment; iterations of the last alignment.
#: Tuned with `python -m benchmarks.registration`.
SEARCH_VOXEL = 8.0
REFINE_VOXEL = 4.0
SEARCH_RIM = 10.0
REFINE_RIM = 5.0

#: Motions that are tried around each start: every combination of these shifts (mm) and turns (degrees) per axis.
SHIFTS = (-15.0, 0.0, 15.0)
TURNS = (-12.0, 0.0, 12.0)

#: How many of the tried motions are followed to their optimum, and how many of those are refined.
N_FOLLOWED = 10
N_REFINED = 3

#: Standard deviation (mm) of the Gaussian whose local mean counts as shading.
SHADING_WIDTH = 20.0

#: Ends of the range of bins, relative to the local mean: fluid in the b0, white matter in the T1w. Fat is brighter.
BRIGHTEST_B0 = 2.5
BRIGHTEST_T1W = 1.7

#: Bins per image of the joint histogram.
N_BINS = 32

#: Distance from the start (mm and degrees) at which a motion's information counts half.
LIKELY_MOTION = 40.0

#: Part of the brain's samples that must lie in the T1w for a result to count.
LEAST_OVERLAP = 0.2

#: Height (mm) of the part of a head, from its top, that holds the brain.
BRAIN_HEIGHT = 130.0


@dataclass(frozen=True)
class Registration:
    """The rigid motion that brings a T1w into the world of a dMRI series.

    Attributes
    ----------
    matrix : ndarray, (4, 4)
        T1w world to dMRI world, mm, RAS+: `matrix @ t1w_affine` is the T1w's affine in the dMRI's world.
    mutual_information : float
        Of both images in the brain, in nats.
    agreement : float
        What the images share, 0 (nothing) to 1 (one predicts the other): the symmetric uncertainty
        2 I(A;B) / (H(A) + H(B)), which does not depend on the units of the images.
    contrast : float
        Rank correlation of both images, -1 to 1. Fluid is bright in a b0 and dark in a T1w, so that of a T1w is
        negative; it is positive for a T2w, or a T1w whose contrast is inverted.
    rotation_degrees : float
        Angle of the motion.
    translation_mm : float
        Shift of the brain's centre.
    start : str
        The alignment that the best motion was found from: "scanner" or "head".
    coverage : float
        Part of the brain that lies in the T1w's field of view, 0 to 1.
    """

    matrix: NDArray[np.float64]
    mutual_information: float
    agreement: float
    contrast: float
    rotation_degrees: float
    translation_mm: float
    start: str
    coverage: float = 1.0


@dataclass(frozen=True)
class _Volume:
    """An image with its place in the world."""

    data: NDArray[np.floating] | NDArray[np.bool_]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class _Problem:
    """Samples of the fixed image and the moving image that they are compared with.

    `points` (n, 3) are in mm of the dMRI's world, `bins` (n,) are the samples' intensity bins, `centre` (3,) is the
    point that motions turn about, `to_moving` (4, 4) goes from the T1w's world to voxels of `moving`, whose values
    are in bins.
    """

    points: NDArray[np.float64]
    bins: NDArray[np.int64]
    centre: NDArray[np.float64]
    moving: NDArray[np.float32]
    to_moving: NDArray[np.float64]


def register_rigid(
    b0: NDArray[np.floating],
    b0_affine: NDArray[np.float64],
    mask: NDArray[np.bool_],
    t1w: NDArray[np.floating],
    t1w_affine: NDArray[np.float64],
    *,
    sloppy: bool = False,
) -> Registration:
    """Register a T1w to the mean b0 of the same head, rigidly, by mutual information inside the brain.

    Neck and face are in the T1w and not in the brain's mask, so centres of mass say little. The search starts from
    the scanner's own alignment, and from the tops of the two heads, tries shifts and turns around both on coarse
    voxels, follows the likeliest by Powell's method, and refines the best of those on finer voxels (Maes et al.
    1997). Both images are freed of their coils' shading first. Ending
    with DIPY's rigid registration instead gains 0.01 mm on an undistorted series, costs as much time as all of this,
    and goes 54 mm astray on a distorted one. The same input gives the same motion.

    Parameters
    ----------
    b0 : ndarray, (x, y, z)
        Mean b0.
    b0_affine, t1w_affine : ndarray, (4, 4)
        Voxel index to world, mm, RAS+.
    mask : ndarray of bool, (x, y, z)
        Brain on the grid of `b0`.
    t1w : ndarray, (X, Y, Z)
        Whole head, any resolution.
    sloppy : bool
        Follow only the starts, without trying motions around them; for tests.

    Returns
    -------
    Registration

    Raises
    ------
    T1wRegistrationError
        If an image is empty, or the best motion leaves most of the brain outside the T1w.
    """
    image, head = _image(b0, b0_affine, "mean b0"), _image(t1w, t1w_affine, "T1w")
    brain = _Volume(to_canonical(mask, b0_affine), image.affine)
    search = _problem(image, brain, head, SEARCH_VOXEL, SEARCH_RIM)
    refine = _problem(image, brain, head, REFINE_VOXEL, REFINE_RIM)
    starts = {"scanner": np.zeros(6), "head": _head_start(brain, head, search.centre)}
    found = _best_motion(search, refine, starts, wide=not sloppy)
    motion = _as_matrix(found.parameters, search.centre)
    return replace(_describe(motion, refine, found.start), coverage=_coverage(motion, brain, head))


@dataclass(frozen=True)
class _Candidate:
    """A motion, six parameters, with the information it gives and the start it belongs to."""

    information: float
    parameters: NDArray[np.float64]
    start: str


def _image(data: NDArray[np.floating], affine: NDArray[np.float64], name: str) -> _Volume:
    """An image to be registered, zero where it is not finite; it must show something.

    Its axes run along those of the world, so that how it is stored does not change where averages of it lie.
    """
    finite = _finite(data)
    if not finite.max() > max(0.0, float(finite.min())):
        raise T1wRegistrationError(reason=f"the {name} is empty or constant")
    return _Volume(to_canonical(finite, affine), canonical_affine(affine, data.shape))


def _finite(data: NDArray[np.floating]) -> NDArray[np.floating]:
    """The image, zero where it is not finite."""
    return data if np.isfinite(data).all() else np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)


def _reduced(volume: _Volume, voxel: float) -> _Volume:
    """The volume averaged in blocks of whole voxels that measure about `voxel` mm, or as it is where it is coarser."""
    sizes = np.linalg.norm(volume.affine[:3, :3], axis=0)
    factors = np.minimum(np.maximum(1, np.rint(voxel / sizes)).astype(int), volume.data.shape)
    to_voxels = np.diag([*factors, 1.0])
    to_voxels[:3, 3] = (factors - 1) / 2
    return _Volume(block_average(volume.data, factors), volume.affine @ to_voxels)


def _in_bins(data: NDArray[np.floating], brightest: float) -> NDArray[np.float32]:
    """Intensities from 0 to `brightest` as positions on the scale of bins, 0 to N_BINS - 1."""
    return ((N_BINS - 1) * np.clip(data / brightest, 0, 1)).astype(np.float32)


def _without_shading(volume: _Volume, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The image over its local mean `inside`, so that the shading of a coil does not pass for anatomy."""
    sigma = SHADING_WIDTH / np.linalg.norm(volume.affine[:3, :3], axis=0)
    share = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
    total = ndimage.gaussian_filter(np.where(inside, volume.data, 0).astype(np.float32), sigma)
    least = 1e-6 * float(volume.data.max())
    return np.where(share > 0.01, volume.data * share / np.maximum(total, least), 0).astype(np.float32)


def _problem(image: _Volume, brain: _Volume, head: _Volume, voxel: float, rim: float) -> _Problem:
    """The samples of b0 and T1w on voxels of about `voxel` mm, in the brain and `rim` mm around it."""
    fixed, share, moving = _reduced(image, voxel), _reduced(brain, voxel).data, _reduced(head, voxel * 0.6)
    if not share.any():
        raise T1wRegistrationError(reason="the brain mask is empty")
    # Of a mask that is thin or full of holes, no block may be half full.
    inside = share > min(0.5, share.max() / 2)
    tissue = _foreground(moving.data)
    sizes = np.linalg.norm(fixed.affine[:3, :3], axis=0)
    near = ndimage.distance_transform_edt(~inside, sampling=sizes) <= rim
    index = np.argwhere(near)
    points = index @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    bins = np.rint(_in_bins(_without_shading(fixed, inside), BRIGHTEST_B0)[tuple(index.T)]).astype(np.int64)
    values = _in_bins(_without_shading(moving, tissue), BRIGHTEST_T1W)
    return _Problem(points, bins, _centre(brain), values, np.asarray(np.linalg.inv(moving.affine)))


def _foreground(data: NDArray[np.floating] | NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is brighter than half the image's mean: the head without the air around it."""
    return data > data.mean() / 2


def _centre(brain: _Volume) -> NDArray[np.float64]:
    """Centre of mass of a mask, mm."""
    return np.asarray(brain.affine[:3, :3] @ np.argwhere(brain.data).mean(axis=0) + brain.affine[:3, 3])


def _as_matrix(parameters: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Motion from the dMRI's world to the T1w's, (4, 4): a rotation vector (degrees) about `centre`, a shift (mm)."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(parameters[:3], degrees=True).as_matrix()
    matrix[:3, 3] = centre + parameters[3:] - matrix[:3, :3] @ centre
    return matrix


def _joint_histogram(problem: _Problem, motion: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Joint distribution of the bins, (N_BINS, N_BINS), and the part of the samples that falls into the T1w.

    A sample of the T1w counts for the two bins around it, so that the histogram changes smoothly with the motion.
    """
    to_voxels = problem.to_moving @ motion
    voxels = to_voxels[:3, :3] @ problem.points.T + to_voxels[:3, 3:]
    limits = np.array(problem.moving.shape)[:, None] - 0.5
    inside = np.all((voxels >= -0.5) & (voxels <= limits), axis=0)
    values = ndimage.map_coordinates(problem.moving, voxels[:, inside], order=1, mode="nearest", prefilter=False)
    low = np.minimum(values.astype(np.int64), N_BINS - 2)
    part = values - low
    cell = problem.bins[inside] * N_BINS + low
    length = N_BINS * N_BINS + 1
    joint = np.bincount(cell, 1 - part, length)[:-1] + np.bincount(cell + 1, part, length)[:-1]
    return joint.reshape(N_BINS, N_BINS) / max(1, inside.sum()), float(inside.mean())


def _entropy(distribution: NDArray[np.float64]) -> float:
    """Shannon entropy in nats."""
    positive = distribution[distribution > 0]
    return float(-np.sum(positive * np.log(positive)))


def _entropies(joint: NDArray[np.float64]) -> tuple[float, float, float]:
    """Entropies of the first image, of the second, and of both."""
    return _entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0)), _entropy(joint)


def _information(problem: _Problem, parameters: NDArray[np.float64]) -> float:
    """Mutual information in nats, times the part of the brain that lies in the T1w's field of view."""
    joint, overlap = _joint_histogram(problem, _as_matrix(parameters, problem.centre))
    first, second, both = _entropies(joint)
    return (first + second - both) * overlap


def _climb(problem: _Problem, candidate: _Candidate, step: float) -> _Candidate:
    """Follow a candidate to the next optimum by Powell's method, first steps of `step` degrees and mm."""
    result = optimize.minimize(
        lambda steps: -_information(problem, candidate.parameters + step * steps),
        np.zeros(6),
        method="Powell",
        options={"xtol": 0.02, "ftol": 1e-4, "maxiter": 8},
    )
    return _Candidate(float(-result.fun), candidate.parameters + step * result.x, candidate.start)


def _tried(problem: _Problem, start: str, parameters: NDArray[np.float64]) -> Iterator[_Candidate]:
    """Every combination of shifts and turns around a start."""
    for change in product(*[TURNS] * 3, *[SHIFTS] * 3):
        moved = parameters + np.array(change)
        yield _Candidate(_information(problem, moved), moved, start)


def _likelihood(candidate: _Candidate, starts: dict[str, NDArray[np.float64]]) -> float:
    """The candidate's information, less where it lies far from its start: heads move little between two scans.

    On distorted series poses that cut through scalp and air share a little more with the b0 than the true one does.
    """
    # A degree moves the brain's surface by about a millimetre.
    distance = float(np.linalg.norm(candidate.parameters - starts[candidate.start]))
    return candidate.information / (1 + (distance / LIKELY_MOTION) ** 2)


def _best_motion(search: _Problem, refine: _Problem, starts: dict[str, NDArray[np.float64]], wide: bool) -> _Candidate:
    """Try (if `wide`), follow, refine: the likeliest motion; equal ones in the order of the starts."""

    def likeliest(candidates: list[_Candidate]) -> list[_Candidate]:
        return sorted(candidates, key=lambda candidate: -_likelihood(candidate, starts))

    exact = [_Candidate(_information(search, parameters), parameters, name) for name, parameters in starts.items()]
    around = starts if wide else {}
    tried = [candidate for name, parameters in around.items() for candidate in _tried(search, name, parameters)]
    followed = [_climb(search, candidate, step=4.0) for candidate in exact + likeliest(tried)[:N_FOLLOWED]]
    refined = [_climb(refine, candidate, step=1.0) for candidate in _distinct(likeliest(followed))]
    return likeliest(refined)[0]


def _distinct(candidates: list[_Candidate]) -> list[_Candidate]:
    """The first `N_REFINED` candidates that are more than 4 mm and degrees from each other."""
    chosen: list[_Candidate] = []
    for candidate in candidates:
        if all(np.linalg.norm(candidate.parameters - other.parameters) > 4 for other in chosen):
            chosen.append(candidate)
    return chosen[:N_REFINED]


def _head_start(brain: _Volume, head: _Volume, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Motion without rotation that puts the brain's top and middle at those of the T1w's head.

    It helps where the two worlds have nothing to do with each other.
    """
    coarse = _reduced(head, SEARCH_VOXEL)
    points = np.argwhere(coarse.data > coarse.data.mean()) @ coarse.affine[:3, :3].T + coarse.affine[:3, 3]
    if len(points) == 0:
        return np.zeros(6)
    top = np.percentile(points[:, 2], 99)
    upper = points[points[:, 2] > top - BRAIN_HEIGHT]
    brain_points = np.argwhere(brain.data) @ brain.affine[:3, :3].T + brain.affine[:3, 3]
    shift = np.array([*(np.median(upper[:, :2], axis=0) - centre[:2]), top - np.percentile(brain_points[:, 2], 99)])
    return np.array([0.0, 0.0, 0.0, *shift])


def _describe(motion: NDArray[np.float64], problem: _Problem, start: str) -> Registration:
    """The result, with what it shares and how far it moves."""
    joint, overlap = _joint_histogram(problem, motion)
    if overlap < LEAST_OVERLAP:
        raise T1wRegistrationError(reason="no motion puts the brain of the dMRI into the T1w's field of view")
    first, second, both = _entropies(joint)
    shared = first + second - both
    centre = problem.centre
    return Registration(
        matrix=np.asarray(np.linalg.inv(motion), dtype=np.float64),
        mutual_information=shared,
        agreement=float(np.clip(2 * shared / max(first + second, 1e-12), 0, 1)),
        contrast=_rank_correlation(joint),
        rotation_degrees=float(np.degrees(Rotation.from_matrix(motion[:3, :3]).magnitude())),
        translation_mm=float(np.linalg.norm(motion[:3, :3] @ centre + motion[:3, 3] - centre)),
        start=start,
    )


def _coverage(motion: NDArray[np.float64], brain: _Volume, head: _Volume) -> float:
    """Part of the brain that a motion puts into the cells of the T1w."""
    to_voxels = np.linalg.inv(head.affine) @ motion @ brain.affine
    voxels = np.argwhere(brain.data) @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    return float(np.mean(np.all((voxels >= -0.5) & (voxels <= np.array(head.data.shape) - 0.5), axis=1)))


def _rank_correlation(joint: NDArray[np.float64]) -> float:
    """Spearman's correlation of two images from the joint distribution of their bins; 0 where one is constant."""
    shares = joint.sum(axis=1), joint.sum(axis=0)
    ranks = [np.cumsum(share) - share / 2 - share.sum() / 2 for share in shares]
    covariance = float(ranks[0] @ joint @ ranks[1])
    variances = [float(share @ rank**2) for share, rank in zip(shares, ranks, strict=True)]
    return covariance / max(float(np.sqrt(variances[0] * variances[1])), 1e-12)
