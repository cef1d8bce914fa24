"""How restored tensor maps differ from the acquired ones, tissue by tissue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_sr.dwi.tensor import TensorMaps

#: Labels of `tissue_classes`.
TISSUES = {"WM": 3, "GM": 2, "CSF": 1}

#: Maps that are compared, with the attribute that holds them.
MAPS = {"FA": "fa", "MD": "md", "AD": "ad", "RD": "rd"}

#: White matter without a T1w: as anisotropic as this. Cortex stays below 0.2 at usual noise, FA of white matter in
#: plain fits of six scanners averages 0.39-0.45.
WHITE_MATTER_FA = 0.25

#: Diffusivities relative to the median MD of the brain (0.75-0.85e-3 mm2/s at b = 1000 s/mm2, lower at higher b):
#: a voxel above the first is mostly fluid (3e-3 mm2/s), one above the second partly so, hence not white matter.
FLUID_MD = 2.0
MIXED_MD = 1.5

#: Voxels of the mask darker than this part of its median b0 are bone or air, and belong to no tissue.
DARKEST_B0 = 0.25

#: The T1w is cut at these percentiles in the mask, so that fat, vessels and bone do not make classes of their own.
INTENSITY_RANGE = (2.0, 99.0)

#: Part of the brain's extent over which a coil's shading is taken as even.
SHADING_EXTENT = 6.0

#: Classes of a T1w count only where their white matter is this much more anisotropic than their grey matter; it is
#: 1.6 to 2.4 times in real scans, and near 1 where shading or a wrong T1w makes the classes.
LEAST_FA_RATIO = 1.3

Row: TypeAlias = dict[str, str | int | float | None]


def tissue_classes(
    fa: NDArray[np.floating],
    md: NDArray[np.floating],
    b0: NDArray[np.floating],
    mask: NDArray[np.bool_],
    t1w_on_grid: NDArray[np.floating] | None = None,
) -> NDArray[np.uint8]:
    """Label each voxel of the mask as fluid, grey or white matter.

    With a T1w: DIPY's hidden Markov random field (Zhang et al. 2001) with three classes on its intensities, evened out
    by the white matter that diffusion shows. Without one, where it does not reach, or where its classes contradict
    FA: fluid has MD > 2 times the brain's median, white matter FA > 0.25 and MD < 1.5 times the median, grey matter is
    the rest.

    Parameters
    ----------
    fa, md : ndarray, (x, y, z)
        Of the acquired data; `md` in mm2/s.
    b0 : ndarray, (x, y, z)
        Mean b0, any unit.
    mask : ndarray of bool, (x, y, z)
    t1w_on_grid : ndarray, (x, y, z), optional
        The T1w on the same grid, as `bids_sr.dwi.t1w.t1w_on_grid` gives it; zero or NaN where its field of view ends.

    Returns
    -------
    ndarray of uint8, (x, y, z)
        0 none, 1 CSF, 2 GM, 3 WM.
    """
    brain = mask & (md > 0)
    labels = np.zeros(mask.shape, dtype=np.uint8)
    if not brain.any():
        return labels
    brain &= b0 > DARKEST_B0 * np.median(b0[brain])
    labels[brain] = _classes_from_diffusion(fa[brain], md[brain])
    if t1w_on_grid is not None:
        t1w = even_out(np.nan_to_num(t1w_on_grid), brain, labels == TISSUES["WM"])
        from_t1w = _classes_from_t1w(t1w)
        if _is_plausible(from_t1w, fa):
            labels = np.where(from_t1w > 0, from_t1w, labels)
    return labels


def _classes_from_diffusion(fa: NDArray[np.floating], md: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Labels of voxels from their FA and MD (mm2/s)."""
    relative = md / np.median(md)
    labels = np.full(fa.shape, TISSUES["GM"], dtype=np.uint8)
    labels[(fa > WHITE_MATTER_FA) & (relative < MIXED_MD)] = TISSUES["WM"]
    labels[relative > FLUID_MD] = TISSUES["CSF"]
    return labels


def even_out(
    t1w: NDArray[np.floating], brain: NDArray[np.bool_], white_matter: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Divide the T1w by its shading, so that white matter is about 1 everywhere; 0 outside the brain.

    Coils shade an image by more than its tissues differ. The shading is the T1w of the voxels that diffusion calls
    white matter, spread by a Gaussian of a sixth of the brain's extent.
    """
    extent = np.ptp(np.argwhere(brain), axis=0) + 1
    reference = white_matter & (t1w > 0)
    total = ndimage.gaussian_filter(np.where(reference, t1w, 0.0).astype(np.float64), extent / SHADING_EXTENT)
    share = ndimage.gaussian_filter(reference.astype(np.float64), extent / SHADING_EXTENT)
    shading = np.divide(total, share, out=np.zeros_like(total), where=share > 1e-6)
    return np.divide(t1w, shading, out=np.zeros_like(total), where=brain & (shading > 0))


def _classes_from_t1w(t1w: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Labels from the intensities of a T1w that is zero outside the brain; all zero where it has no three classes."""
    from dipy.segment.tissue import TissueClassifierHMRF

    inside = t1w > 0
    if len(np.unique(t1w[inside])) < len(TISSUES):
        return np.zeros(t1w.shape, dtype=np.uint8)
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    darkest, brightest = np.percentile(t1w[inside], INTENSITY_RANGE)
    # The random field starts from classes spread evenly from zero to the brightest voxel.
    bounded = np.where(inside, 1 + 254 * np.clip((t1w - darkest) / (brightest - darkest), 0, 1), 0)[box]
    # A class that empties turns into NaN there; `_is_plausible` then refuses the result.
    with np.errstate(invalid="ignore", divide="ignore"):
        _, inner, _ = TissueClassifierHMRF(save_history=False, verbose=False).classify(
            bounded, len(TISSUES), 0.1, tolerance=1e-4, max_iter=10
        )
    labels = np.zeros(t1w.shape, dtype=np.uint8)
    labels[box] = inner
    return np.where(inside, labels, 0).astype(np.uint8)


def _is_plausible(labels: NDArray[np.uint8], fa: NDArray[np.floating]) -> bool:
    """Whether all three tissues are there and white matter is the clearly more anisotropic one."""
    present = [bool(np.any(labels == label)) for label in TISSUES.values()]
    return all(present) and bool(
        fa[labels == TISSUES["WM"]].mean() > LEAST_FA_RATIO * fa[labels == TISSUES["GM"]].mean()
    )


def compare(
    acquired: TensorMaps,
    restored: Mapping[str, TensorMaps],
    tissues: NDArray[np.uint8],
    mask: NDArray[np.bool_],
) -> list[Row]:
    """Describe each map in each tissue, and the differences of the restored maps from the acquired ones.

    Parameters
    ----------
    acquired : TensorMaps
        On the acquired grid.
    restored : mapping of str to TensorMaps
        By method ("cubic", "sr"), averaged back onto the acquired grid.
    tissues : ndarray of uint8, (x, y, z)
        As `tissue_classes` gives them.
    mask : ndarray of bool, (x, y, z)
        The whole brain, tissue "brain" of the table.

    Returns
    -------
    list of dict
        One row per map, tissue and method, the acquired maps being method "orig". Keys: map, tissue, method,
        n_voxels, mean, sd, median, bias (mean difference), mae (mean absolute difference), correlation (Pearson),
        v1_angle (median angle in degrees between the principal directions, in the FA rows of white matter).
        Diffusivities in mm2/s. None where a number does not apply or does not exist.
    """
    regions = {name: mask & (tissues == label) for name, label in TISSUES.items()} | {"brain": mask}
    methods = {"orig": acquired} | dict(restored)
    return list(_rows(methods, regions))


def _rows(methods: Mapping[str, TensorMaps], regions: Mapping[str, NDArray[np.bool_]]) -> Iterator[Row]:
    """Rows in the order of maps, tissues, methods; the first method is the reference."""
    reference = next(iter(methods.values()))
    for map_name, attribute in MAPS.items():
        for tissue, region in regions.items():
            for method, maps in methods.items():
                row: Row = {"map": map_name, "tissue": tissue, "method": method}
                row |= _description(getattr(maps, attribute)[region])
                row |= _differences(reference, maps, attribute, region)
                if map_name == "FA" and tissue == "WM" and maps is not reference:
                    row["v1_angle"] = _median(angles(reference.v1[region], maps.v1[region]))
                yield row


def _description(values: NDArray[np.floating]) -> Row:
    """Count, mean, SD and median."""
    numbers = values.astype(np.float64)
    if numbers.size == 0:
        return {"n_voxels": 0, "mean": None, "sd": None, "median": None}
    return {
        "n_voxels": numbers.size,
        "mean": float(numbers.mean()),
        "sd": float(numbers.std()),
        "median": float(np.median(numbers)),
    }


def _differences(reference: TensorMaps, maps: TensorMaps, attribute: str, region: NDArray[np.bool_]) -> Row:
    """Bias, mean absolute error and correlation with the reference; None for the reference itself."""
    expected = getattr(reference, attribute)[region].astype(np.float64)
    if maps is reference or expected.size == 0:
        return {"bias": None, "mae": None, "correlation": None, "v1_angle": None}
    values = getattr(maps, attribute)[region].astype(np.float64)
    return {
        "bias": float(np.mean(values - expected)),
        "mae": float(np.mean(np.abs(values - expected))),
        "correlation": _correlation(expected, values),
        "v1_angle": None,
    }


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Pearson's correlation, None where one of them does not vary."""
    spread = first.std() * second.std()
    if spread == 0:
        return None
    return float(np.mean((first - first.mean()) * (second - second.mean())) / spread)


def angles(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Angles in degrees, 0 to 90, between directions whose sign has no meaning, (n, 3) each; zero vectors left out."""
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    valid = lengths > 0
    cosines = np.abs(np.sum(first[valid] * second[valid], axis=-1, dtype=np.float64)) / lengths[valid]
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))


def _median(values: NDArray[np.float64]) -> float | None:
    """The median, None of nothing."""
    return float(np.median(values)) if values.size else None
