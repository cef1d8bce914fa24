"""A real scan, degraded and put through the whole app, comes back closer to the acquired one than interpolation."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.restoration import measure, restore, write_degraded
from bids_sr.bids.inputs import find_series
from bids_sr.config import Config

ROOT = Path(__file__).parents[2]
DATASET = Path(os.environ.get("BIDS_SR_TEST_DATA", ROOT / ".." / "shared" / "data" / "open-dmri"))

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not (DATASET / "sub-sag").is_dir(),
        reason="no real scans: set BIDS_SR_TEST_DATA to the folder that holds sub-sag",
    ),
]


def test_a_scanner_that_was_never_trained_on(tmp_path):
    """Sub-sag is of the validation part: oblique, sagittal slices, 2.7 mm, b = 2000."""
    (series,) = find_series(Config(DATASET, tmp_path, tmp_path, participants=("sag",)))
    voxel_sizes = nib.load(series.dwi).header.get_zooms()[:3]
    write_degraded(series, np.full(3, 2.0), tmp_path / "data")
    restored = restore(tmp_path, np.array(voxel_sizes, dtype=float), "light", ["--device", "cpu"])
    figures = dict(measure(series, restored))
    psnr, _, ssim, fa, md, _ = np.array(figures["sr"]) - np.array(figures["cubic"])
    assert psnr > 1.5
    assert ssim > 0.05
    assert fa < 0
    assert md < 0
