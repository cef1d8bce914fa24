"""A pack holds the normalized brain box, and nothing else is taken for one."""

import dataclasses
import errno
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bids_sr.errors import NoSignalError, TrainingDataError
from bids_sr.training.packing import MARGIN, load_pack, pack_scan, save_pack

BVALS = np.array([0.0, 1000, 1000, 2000])
SHAPE = (40, 30, 20)
VOXEL_SIZES = np.array([2.0, 2.0, 1.0])


def made_series():
    data = np.random.default_rng(0).uniform(50, 150, (*SHAPE, 4)).astype(np.float32)
    data[..., 0] *= 3
    mask = np.zeros(SHAPE, bool)
    mask[18:22, 12:15, 2:9] = True
    return data, mask


@pytest.fixture
def scan():
    data, mask = made_series()
    t1w = np.random.default_rng(1).random((80, 60, 20)).astype(np.float32)
    return data, mask, pack_scan("sub-01_dwi", data, BVALS, mask, 50, voxel_sizes=VOXEL_SIZES, t1w=t1w), t1w


def packed(data, mask, bvals=BVALS, **options):
    return pack_scan("sub-01", data, bvals, mask, 50, voxel_sizes=VOXEL_SIZES, **options)


def test_the_box_is_the_mask_and_its_margin(scan):
    data, mask, made, _ = scan
    assert made.mask.shape == (4 + 2 * MARGIN, 3 + 2 * MARGIN, 2 + 7 + MARGIN)
    assert made.mask.sum() == mask.sum() == len(made.inside)
    level = np.median(data[..., 0][mask])
    np.testing.assert_allclose(made.data[0][made.mask], data[..., 0][mask] / level, rtol=1e-3)


def test_levels_give_the_units_of_the_scan_back(scan):
    """And with them the signal over the b0, S / S0."""
    data, mask, made, _ = scan
    for volume in range(4):
        signal = made.data[volume].astype(float) * made.levels[made.shells[volume]]
        np.testing.assert_allclose(signal[made.mask], data[..., volume][mask], rtol=1e-3)
    ratio = made.data[3] * made.levels[2] / (made.means[0] * made.levels[0])
    np.testing.assert_allclose(ratio[made.mask], (data[..., 3] / data[..., 0])[mask], rtol=1e-3)


def test_the_t1w_is_cut_to_the_same_box(scan):
    t1w, made = scan[3], scan[2]
    assert made.t1w_parts == (2, 2, 1)
    low = np.array([18 - MARGIN, 12 - MARGIN, 0]) * (2, 2, 1)
    assert made.t1w.shape == tuple(np.multiply(made.mask.shape, (2, 2, 1)))
    np.testing.assert_allclose(made.t1w[5, 7, 3], t1w[tuple(np.add(low, (5, 7, 3)))], rtol=1e-3)


@pytest.mark.parametrize("drawn", range(3))
def test_voxels_are_drawn_in_the_brain(scan, drawn):
    assert scan[2].mask[tuple(scan[2].draw_voxel(np.random.default_rng(drawn)))]


def test_what_is_written_is_read(scan, tmp_path):
    with_t1w = scan[2]
    without = dataclasses.replace(with_t1w, name="sub-02", t1w=None, simulated=True, mask=with_t1w.mask[1:])
    save_pack(iter([with_t1w, without]), tmp_path / "pack.safetensors")
    first, second = load_pack(tmp_path / "pack.safetensors")
    assert (first.name, second.name, first.simulated, second.simulated) == ("sub-01_dwi", "sub-02", False, True)
    assert second.t1w is None
    for field in ("data", "means", "shells", "mask", "levels", "voxel_sizes", "t1w"):
        np.testing.assert_array_equal(getattr(first, field), getattr(with_t1w, field))
        assert getattr(first, field).dtype == getattr(with_t1w, field).dtype
        assert getattr(first, field).flags.aligned
    np.testing.assert_array_equal(second.data, with_t1w.data)
    assert first.gradients is None


def test_gradients_are_kept_and_directions_of_b0_volumes_may_be_anything(tmp_path):
    bvecs = np.vstack([np.full(3, np.nan), np.eye(3)])
    made = packed(*made_series(), bvecs=bvecs)
    save_pack([made], tmp_path / "pack.safetensors")
    (read,) = load_pack(tmp_path / "pack.safetensors")
    np.testing.assert_array_equal(read.gradients, np.column_stack([BVALS, np.vstack([np.zeros(3), np.eye(3)])]))


def test_other_programs_can_read_a_pack(scan, tmp_path):
    save_pack([scan[2]], tmp_path / "pack.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "pack.safetensors")["sub-01_dwi/data"], scan[2].data)


@pytest.mark.parametrize("content", [b"", b"pickle", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(TrainingDataError, match="not a pack"):
        load_pack(tmp_path / "x")


def test_a_missing_or_cut_file_is_refused(scan, tmp_path):
    with pytest.raises(TrainingDataError):
        load_pack(tmp_path / "nowhere")
    save_pack([scan[2]], tmp_path / "pack")
    (tmp_path / "cut").write_bytes((tmp_path / "pack").read_bytes()[:-100])
    with pytest.raises(TrainingDataError, match="not a pack"):
        load_pack(tmp_path / "cut")


def test_a_pack_of_an_older_version_is_to_be_made_again(tmp_path):
    tensors = {f"a/{field}": np.zeros(8, np.float32) for field in ("data", "means", "shells", "mask")}
    save_file(tensors, tmp_path / "old", metadata={"scans": '["a"]'})
    with pytest.raises(TrainingDataError, match="pack the scans again"):
        load_pack(tmp_path / "old")


def test_voxels_that_are_not_finite_count_as_zero():
    data, mask = made_series()
    data[20, 13, 5, 1], data[0, 0, 0, 2] = np.nan, np.inf
    made = packed(data, mask)
    assert np.isfinite(made.data).all()
    assert np.isfinite(made.means).all()
    assert (made.data[1][made.mask] == 0).sum() == 1


def broken(change):
    """A series to which `change` was made, and what else `packed` takes."""
    data, mask = made_series()
    given = {"data": data, "mask": mask, "bvals": BVALS}
    change(given)
    return given


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda given: given.update(mask=np.zeros(SHAPE, bool)), "mask is empty"),
        (lambda given: given.update(mask=np.ones((40, 30, 21), bool)), "shape"),
        (lambda given: given.update(bvals=BVALS[:3]), "b-values"),
        (lambda given: given.update(bvals=np.zeros(4)), "no weighted"),
        (lambda given: given.update(bvals=np.full(4, 1000.0)), "no b0"),
        (lambda given: given["data"][..., 2].fill(np.nan), "volume 2.*finite"),
        (lambda given: given.update(t1w=np.ones((81, 60, 20))), "T1w"),
    ],
)
def test_what_is_no_scan_is_refused(change, problem):
    with pytest.raises(TrainingDataError, match=problem) as caught:
        packed(**broken(change))
    assert "\n" not in str(caught.value)


def test_a_shell_without_signal_is_refused():
    data, mask = made_series()
    data[..., 3] = 0
    with pytest.raises(NoSignalError, match="2000"):
        packed(data, mask)


def test_neither_nothing_nor_two_of_one_name_is_packed(scan, tmp_path):
    with pytest.raises(TrainingDataError, match="no scan"):
        save_pack([], tmp_path / "pack")
    with pytest.raises(TrainingDataError, match="two scans are named sub-01_dwi"):
        save_pack([scan[2], scan[2]], tmp_path / "pack")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_leaves_the_former_pack(scan, tmp_path, monkeypatch):
    save_pack([scan[2]], tmp_path / "pack")
    before = (tmp_path / "pack").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TrainingDataError, match=r"pack: cannot be written \(No space left on device\)"):
        save_pack([scan[2]], tmp_path / "pack")
    assert [file.name for file in tmp_path.iterdir()] == ["pack"]
    assert (tmp_path / "pack").read_bytes() == before


def test_a_disk_that_fills_up_while_writing_leaves_nothing(scan):
    """The device of this name is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    from bids_sr.training.packing import _write_scan

    with pytest.raises(OSError, match="No space"), Path("/dev/full").open("wb") as stream:
        _write_scan(scan[2], stream)


def test_a_scan_that_cannot_be_read_leaves_no_pack(scan, tmp_path):
    def scans():
        yield scan[2]
        raise TrainingDataError(where="sub-02", problem="broken")

    with pytest.raises(TrainingDataError, match="broken"):
        save_pack(scans(), tmp_path / "pack")
    assert not list(tmp_path.iterdir())
