"""A pack holds the normalized brain box, and nothing else is taken for one."""

import numpy as np
import pytest

from bids_sr.errors import TrainingDataError
from bids_sr.training.packing import MARGIN, load_pack, pack_scan, save_pack

BVALS = np.array([0.0, 1000, 1000])


@pytest.fixture
def scan():
    data = np.random.default_rng(0).uniform(50, 150, (40, 30, 20, 3)).astype(np.float32)
    mask = np.zeros(data.shape[:3], bool)
    mask[18:22, 12:15, 2:9] = True
    return data, mask, pack_scan("sub-01_dwi", data, BVALS, mask, 50)


def test_the_box_is_the_mask_and_its_margin(scan):
    data, mask, packed = scan
    assert packed.mask.shape == (4 + 2 * MARGIN, 3 + 2 * MARGIN, 2 + 7 + MARGIN)
    assert packed.mask.sum() == mask.sum() == len(packed.inside)
    level = np.median(data[..., 0][mask])
    np.testing.assert_allclose(packed.data[0][packed.mask], data[..., 0][mask] / level, rtol=1e-3)
    np.testing.assert_allclose(packed.channels(1)[2][packed.mask].mean(), packed.means[1][packed.mask].mean())


def test_what_is_written_is_read(scan, tmp_path):
    packed = scan[2]
    save_pack([packed, packed], tmp_path / "pack.safetensors")
    again = load_pack(tmp_path / "pack.safetensors")
    assert [one.name for one in again] == ["sub-01_dwi"] * 2
    for field in ("data", "means", "shells", "mask"):
        np.testing.assert_array_equal(getattr(again[0], field), getattr(packed, field))


@pytest.mark.parametrize("content", [b"", b"pickle", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(TrainingDataError, match="not a pack"):
        load_pack(tmp_path / "x")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TrainingDataError):
        load_pack(tmp_path / "nowhere")
