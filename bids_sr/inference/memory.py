"""What a restoration needs, told from the image header before it starts."""

from dataclasses import dataclass

import numpy as np

from bids_sr.models.registry import ModelCard

#: Multiply-adds per second and thread that the networks reach on one AVX2 core; dry runs state times on this basis.
RATE_PER_THREAD = 3.5e10
#: Share of a field of view that brain masks fill, and share that their boxes fill, with the margins that are encoded.
MASK_SHARE, BOX_SHARE = 0.3, 0.75
#: Python, torch and the libraries beside them, in GB.
PROGRAM_GB = 0.6


@dataclass(frozen=True)
class Estimate:
    """Peak memory in GB (1024^3 bytes) and duration in seconds of restoring one series."""

    peak_gb: float
    seconds: float


def estimate(
    source_shape: tuple[int, int, int],
    n_volumes: int,
    target_shape: tuple[int, int, int],
    card: ModelCard,
    threads: int = 1,
) -> Estimate:
    """Memory and time of `restore_volumes`.

    Parameters
    ----------
    source_shape, target_shape : tuple of int, (3,)
        The two grids.
    n_volumes : int
        Volumes in the series; memory does not depend on them.
    card : ModelCard
    threads : int
        Processor threads.
    """
    acquired, wanted = float(np.prod(source_shape)), float(np.prod(target_shape))
    per_voxel, per_query, live = _costs(card)
    encoded, queries = acquired * BOX_SHARE, wanted * MASK_SHARE
    # Acquired grid: shell means, a volume, channels. Target grid: result and interpolation steps (float32), and the
    # restored points with their voxel indices (int64) and coordinates (float64, float32).
    arrays = acquired * 4 * 16 + wanted * 4 * 4 + queries * (24 + 24 + 12 + 4)
    seconds = n_volumes * ((encoded * per_voxel + queries * per_query) / (RATE_PER_THREAD * threads) + wanted * 3e-7)
    return Estimate(PROGRAM_GB + (arrays + encoded * live * 4) / 1024**3, seconds)


def _costs(card: ModelCard) -> tuple[float, float, float]:
    """Multiply-adds per encoded voxel and per query, and values alive per encoded voxel."""
    if card.architecture != "csr_dmri":
        return 0.0, 3e4, 4.0
    defaults = {"channels": 2, "features": 64, "growth": 64, "blocks": 8, "layers": 3, "feature_channels": 128}
    size = defaults | {"hidden": 256, "stages": 2} | card.arguments
    width, growth, layers = size["features"], size["growth"], size["layers"]
    dense = sum(27 * (width + i * growth) * growth for i in range(layers)) + (width + layers * growth) * width
    rim = 27 * (size["channels"] * width + 2 * width * width + width * size["feature_channels"])
    fusion = size["blocks"] * width * width
    decoder_in = size["feature_channels"] + 6
    stage = decoder_in * size["hidden"] + 2 * size["hidden"] ** 2
    last = size["hidden"] * (1 + (size["stages"] - 1) * decoder_in)
    live = 2 * (width + layers * growth) + 4 * width + 2 * size["feature_channels"]
    return float(size["blocks"] * dense + rim + fusion), float(size["stages"] * stage + last), float(live)
