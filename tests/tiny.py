"""A dataset so small that a whole run takes seconds."""

from dataclasses import replace
from pathlib import Path

import pytest

from bids_sr.demo import dataset as demo

TINY = replace(
    demo.SMALL,
    dwi_shape=(12, 14, 11), dwi_voxel_size=6.0, t1w_shape=(22, 26, 20), t1w_voxel_size=3.3, n_b0=1, n_directions=7,
)  # fmt: skip


def make_tiny(folder: Path, n_sessions: int = 1) -> Path:
    """A head of 12 x 14 x 11 voxels of 6 mm, one b0 and seven directions, with a T1w and its truth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SMALL", TINY)
        demo.make_dataset(folder, small=True, n_sessions=n_sessions)
    return folder
