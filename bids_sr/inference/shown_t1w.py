"""Which T1w a model is shown, or why it is shown none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.t1w import T1wImage, t1w_channel
from bids_sr.dwi.trust import BLANK_T1W, NO_T1W, distrust
from bids_sr.geometry import Grid


@dataclass(frozen=True)
class ShownT1w:
    """A T1w as a model is shown it.

    Attributes
    ----------
    image : T1wImage or None
        At its own resolution.
    channel : ndarray, (x, y, z), or None
        On the acquired grid, see `bids_sr.dwi.t1w.t1w_channel`.
    reason : str
        Why there is none.
    """

    image: T1wImage | None = None
    channel: NDArray[np.float32] | None = None
    reason: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """What the record of a series says of it."""
        return {"used": self.image is not None, "reason": self.reason}


def show_t1w(image: T1wImage | None, registration: Mapping[str, Any], grid: Grid, mask: NDArray[np.bool_]) -> ShownT1w:
    """The T1w for a model that uses it.

    Parameters
    ----------
    image : T1wImage or None
        In the world of the series.
    registration : mapping
        How it was brought there, with its agreement, contrast and coverage; empty where it was given so.
    grid : Grid
        The acquired one.
    mask : ndarray of bool, (x, y, z)
        Brain on it.
    """
    if image is None:
        return ShownT1w(reason=NO_T1W)
    if reason := distrust(registration):
        return ShownT1w(reason=reason)
    channel = t1w_channel(image.voxels, image.grid, grid, mask)
    return ShownT1w(image, channel) if channel.any() else ShownT1w(reason=BLANK_T1W)
