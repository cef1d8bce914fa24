"""T1w images made from the diffusion scan itself, for scans that come without one."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_sr.dwi.t1w import LARGEST, PERCENTILES

Float = NDArray[np.float32]

#: Pictures of one scan that differ in contrast, shading, texture and noise.
VERSIONS = 8
#: The T1w of a real scan as a polynomial of `contrasts`, see `fit_coefficients`: 1, the contrasts b, w and s, and the
#: products bb, bw, bs, ww, ws, ss. Fitted in the brain of a scan with b = 1000 s/mm2 and voxels of 3.5 x 3.5 x 4.2 mm
#: (3 T, 16 directions), whose T1w was registered to it and lies on the same voxels.
#: They explain 71 % of its variance.
COEFFICIENTS = (0.2421, -0.2537, 0.4055, 1.2753, 0.0014, -0.0885, -0.0415, -0.0403, -0.2304, -0.6744)
#: Median that the relative spread over directions is scaled to: scans differ in noise and in b-value.
TYPICAL_SPREAD = 0.25
#: Signals, in units of their shell's level, are kept in this range before their logarithm is taken.
SIGNALS = (0.05, 6.0)
#: T1w intensities up to this part of the brightest take no part in the fit: what lies beyond the T1w's brain.
DARK = 0.02
#: Share of the pictures with the contrast of a T1w, give or take `VARIATION` of each coefficient; the others have any.
T1W_SHARE = 0.75
VARIATION = 0.12
#: Random functions are sums of so many smooth steps.
STEPS = 6
#: Largest standard deviations of shading, texture and noise.
SHADING, TEXTURE, NOISE = 0.02, 0.06, 0.02
#: Widths of shading and texture in voxels.
SHADING_WIDTH = 12.0
TEXTURE_WIDTHS = (0.7, 2.0)


class PseudoT1ws:
    """`VERSIONS` pictures of one scan, each made when it is first asked for.

    A guided model learns from them to take edges from an image of another contrast, whatever that contrast is. They lie
    on the diffusion scan's voxels exactly, and share its distortions, which a real T1w does not.

    Parameters
    ----------
    shown : ndarray, (3, x, y, z)
        Of `contrasts`.
    mask : ndarray of bool, (x, y, z)
        The brain.
    """

    def __init__(self, shown: Float, mask: NDArray[np.bool_]) -> None:
        self._shown, self._mask = shown, mask
        self._made: dict[int, NDArray[np.float16]] = {}

    def version(self, number: int) -> NDArray[np.float16]:
        """Picture `number`, (x, y, z), scaled like a T1w; the same whenever it is asked for."""
        if number not in self._made:
            # Scans of different brains get different pictures.
            random = np.random.default_rng([number, int(self._mask.sum())])
            self._made[number] = pseudo_t1w(self._shown, self._mask, random).astype(np.float16)
        return self._made[number]


def contrasts(weighted: NDArray[np.floating], b0: Float, mask: NDArray[np.bool_]) -> Float:
    """What tells the tissues apart in a diffusion scan.

    Parameters
    ----------
    weighted : ndarray, (n, x, y, z)
        The volumes of one shell, in units of its level.
    b0 : ndarray, (x, y, z)
        The mean b0, in units of its level.
    mask : ndarray of bool, (x, y, z)
        The brain.

    Returns
    -------
    contrasts : ndarray, (3, x, y, z), float32
        Logarithms of the mean b0 and of the mean of the shell; relative standard deviation over its directions, which
        white matter has most of, scaled to a median of `TYPICAL_SPREAD` in the brain.
    """
    mean, square = np.zeros(mask.shape, np.float32), np.zeros(mask.shape, np.float32)
    for volume in weighted:
        mean += volume / np.float32(len(weighted))
        square += volume.astype(np.float32) ** 2 / np.float32(len(weighted))
    kept = np.clip(mean, *SIGNALS)
    deviation = ndimage.gaussian_filter(np.sqrt(np.clip(square - mean**2, 0, None)), 0.5)
    spread = np.clip(deviation / kept, 0, 1.5)
    typical = float(np.median(spread[mask]))
    scaled = spread * (TYPICAL_SPREAD / typical) if typical > 0 else spread
    return np.stack([np.log(np.clip(b0, *SIGNALS)), np.log(kept), scaled]).astype(np.float32)


def pseudo_t1w(shown: Float, mask: NDArray[np.bool_], random: np.random.Generator) -> Float:
    """A picture of a scan with the contrast of a T1w, or any other.

    Parameters
    ----------
    shown : ndarray, (3, x, y, z)
        Of `contrasts`.
    mask : ndarray of bool, (x, y, z)
        The brain.
    random : numpy.random.Generator

    Returns
    -------
    picture : ndarray, (x, y, z), float32
        From 0 to 1.5 with the percentiles of a scaled T1w, as `bids_sr.dwi.t1w.scaled_t1w` gives it; 0 outside the
        mask.
    """
    image = _draw_contrast(random)(shown)
    image *= np.exp(random.uniform(0, SHADING) * _field(mask.shape, SHADING_WIDTH, random))
    low, high = np.percentile(image[mask], PERCENTILES)
    scaled = (image - low) / max(high - low, 1e-6)
    scaled += random.uniform(0, TEXTURE) * _field(mask.shape, random.uniform(*TEXTURE_WIDTHS), random)
    scaled += random.uniform(0, NOISE) * random.standard_normal(mask.shape, dtype=np.float32)
    return np.where(mask, np.clip(scaled, 0, LARGEST), 0).astype(np.float32)


def _draw_contrast(random: np.random.Generator) -> Callable[[Float], Float]:
    """A random smooth function of contrasts, (3, x, y, z), to (x, y, z)."""
    if random.random() < T1W_SHARE:
        coefficients = np.array(COEFFICIENTS) * (1 + random.normal(0, VARIATION, len(COEFFICIENTS)))
        return lambda shown: _weighted_sum(coefficients, polynomial(shown))
    slopes, places = random.normal(0, 1.5, (STEPS, 3)).astype(np.float32), random.normal(0, 0.7, STEPS)
    heights = random.normal(0, 1, STEPS)

    def steps(shown: Float) -> Float:
        """A sum of smooth steps in random directions."""
        directions = zip(slopes, places, strict=True)
        return _weighted_sum(heights, [np.tanh(np.tensordot(a, shown, 1) + np.float32(b)) for a, b in directions])

    return steps


def polynomial(shown: Float) -> list[Float]:
    """1, the contrasts, and their products: (3, ...) to ten arrays, (...)."""
    products = [shown[i] * shown[j] for i in range(len(shown)) for j in range(i, len(shown))]
    return [np.ones_like(shown[0]), *shown, *products]


def _weighted_sum(weights: NDArray[np.floating], terms: list[Float]) -> Float:
    """Arrays of one shape, weighted and summed, float32."""
    total = np.zeros_like(terms[0])
    for weight, term in zip(weights, terms, strict=True):
        total += np.float32(weight) * term
    return total


def _field(shape: tuple[int, ...], width: float, random: np.random.Generator) -> Float:
    """Smooth noise of standard deviation 1; `width` is that of the smoothing, in voxels."""
    noise = ndimage.gaussian_filter(random.standard_normal(shape, dtype=np.float32), width, mode="wrap")
    return noise / max(float(noise.std()), 1e-12)


def fit_coefficients(shown: Float, t1w: Float, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """How `COEFFICIENTS` came about: least squares over the voxels of a brain.

    Parameters
    ----------
    shown : ndarray, (3, x, y, z)
        Of `contrasts`.
    t1w : ndarray, (x, y, z)
        The scaled T1w of the same head on the same voxels.
    mask : ndarray of bool, (x, y, z)
        The brain.

    Returns
    -------
    coefficients : ndarray, (10,)
    explained : float
        Share of the T1w's variance that they explain.
    """
    kept = mask & (t1w > DARK)
    values = t1w[kept].astype(np.float64)
    terms = np.stack([term[kept] for term in polynomial(shown)], axis=1).astype(np.float64)
    coefficients = np.linalg.lstsq(terms, values, rcond=None)[0].astype(np.float64)
    return coefficients, float(1 - np.mean((values - terms @ coefficients) ** 2) / values.var())
