"""Each interface reads files, calls the core and writes files; what goes wrong is noted in its folder."""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import isdefined

from bids_sr.dwi.gradients import Gradients
from bids_sr.errors import MaskGridError, UnreadableImageError
from bids_sr.geometry import Grid
from bids_sr.images import load_grid, load_mask, save_working
from bids_sr.interfaces.b0 import MeanB0
from bids_sr.interfaces.core import CoreInterface
from bids_sr.interfaces.derivatives import SaveDerivatives
from bids_sr.interfaces.failure import Failure
from bids_sr.interfaces.figures import volume_to_show
from bids_sr.interfaces.gradients import summarize
from bids_sr.interfaces.mask import BrainMask, TargetMask
from bids_sr.interfaces.progress import show_progress
from bids_sr.interfaces.series import UnpackSeries
from bids_sr.interfaces.super_resolution import write_volumes

AFFINE = np.array([[0.0, -2.0, 0.0, 5.0], [2.0, 0.0, 0.0, -3.0], [0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
BVALS = np.array([0.0, 1000.0, 5.0, 2000.0])


@pytest.fixture
def dwi_file(tmp_path):
    data = np.arange(4 * 3 * 2 * 4, dtype=np.int16).reshape(4, 3, 2, 4)
    file = tmp_path / "dwi.nii.gz"
    nib.Nifti1Image(data, AFFINE).to_filename(file)
    return file


def test_mean_b0_averages_the_volumes_below_the_threshold(dwi_file, tmp_path):
    np.savetxt(tmp_path / "bval", BVALS[None])
    result = MeanB0(dwi_file=dwi_file, bval_file=tmp_path / "bval", b0_threshold=50.0).run(cwd=tmp_path)
    data = nib.load(dwi_file).get_fdata()
    np.testing.assert_allclose(nib.load(result.outputs.b0_file).get_fdata(), data[..., [0, 2]].mean(axis=-1))
    assert result.outputs.seconds > 0


def test_an_unpacked_series_has_the_same_voxels(dwi_file, tmp_path):
    file = UnpackSeries(dwi_file=dwi_file).run(cwd=tmp_path).outputs.dwi_file
    assert file.endswith(".nii")
    np.testing.assert_array_equal(nib.load(file).dataobj, nib.load(dwi_file).dataobj)


def test_a_series_that_is_not_packed_is_used_where_it_is(dwi_file, tmp_path):
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.decompress(dwi_file.read_bytes()))
    assert UnpackSeries(dwi_file=plain).run(cwd=tmp_path).outputs.dwi_file == str(plain)


@pytest.mark.parametrize("packed", [True, False])
def test_a_series_cut_short_is_the_users_error(dwi_file, tmp_path, packed):
    content = dwi_file.read_bytes() if packed else gzip.decompress(dwi_file.read_bytes())
    broken = tmp_path / ("broken.nii.gz" if packed else "broken.nii")
    broken.write_bytes(content[:-20])
    with pytest.raises(UnreadableImageError, match="broken"):
        UnpackSeries(dwi_file=broken).run(cwd=tmp_path)
    failure = Failure.read(tmp_path)
    assert failure is not None
    assert failure.exit_code == 2


def made_series(folder):
    """Inputs of a stage that reads a series: a b0 and four weighted volumes, of which one is far too bright."""
    data = np.ones((4, 3, 2, 5), np.float32) * np.array([300, 100, 2000, 100, 100], np.float32)
    bvals = folder / "series.bval"
    bvals.write_text("0 1000 1000 1000 1000")
    return {"dwi_file": save_working(data, AFFINE, folder, "series"), "bval_file": bvals, "b0_threshold": 50.0}


def test_a_given_mask_wins(tmp_path):
    mask = np.zeros((4, 3, 2), bool)
    mask[1:3, 1, :] = True
    b0, given = (save_working(data, AFFINE, tmp_path, name) for data, name in [(np.ones((4, 3, 2)), "b0"), (mask, "m")])
    outputs = BrainMask(b0_file=b0, given_file=given, **made_series(tmp_path)).run(cwd=tmp_path).outputs
    np.testing.assert_array_equal(load_mask(outputs.mask_file), mask)
    odd = [{"volume": 2, "b": 1000.0, "times": 20.0}]
    assert outputs.summary == {"source": "given", "volume_ml": 0.0, "odd_volumes": odd}


def test_a_mask_on_another_grid_is_refused(tmp_path):
    b0 = save_working(np.ones((4, 3, 2)), AFFINE, tmp_path, "b0")
    shifted = AFFINE.copy()
    shifted[0, 3] += 1
    given = save_working(np.ones((4, 3, 2), bool), shifted, tmp_path, "given")
    with pytest.raises(MaskGridError):
        BrainMask(b0_file=b0, given_file=given, **made_series(tmp_path)).run(cwd=tmp_path)


def test_the_mask_of_a_doubled_grid_has_eight_voxels_for_each(tmp_path):
    mask = np.zeros((4, 3, 2), bool)
    mask[1, 1, 1] = True
    file = save_working(mask, AFFINE, tmp_path, "mask")
    target = load_grid(file).scaled(np.full(3, 2.0))
    interface = TargetMask(mask_file=file, target_shape=list(target.shape), target_affine=target.affine.tolist())
    fine = load_mask(interface.run(cwd=tmp_path).outputs.mask_file)
    np.testing.assert_array_equal(np.argwhere(fine).min(axis=0), [2, 2, 2])
    assert fine.sum() == 8


def test_volumes_are_written_as_they_come(tmp_path):
    data = np.random.default_rng(0).random((4, 3, 2, 5), dtype=np.float32)
    file = tmp_path / "out.nii"
    write_volumes([file], iter(np.moveaxis(data, -1, 0)), Grid((4, 3, 2), AFFINE), 5)
    image = nib.load(file)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), data)
    np.testing.assert_allclose(image.affine, AFFINE)


def test_derivatives_are_saved_with_sidecars_and_gradients_byte_for_byte(dwi_file, tmp_path):
    bval = tmp_path / "odd.bval"
    bval.write_bytes(b" 0  1000\t5 2.00e3 \r\n")
    working = save_working(np.ones((4, 3, 2), np.float32), AFFINE, tmp_path, "map")
    targets = [tmp_path / "out" / "a_FA.nii.gz", tmp_path / "out" / "a_dwi.bval"]
    SaveDerivatives(
        in_files=[working, str(bval)],
        out_files=[str(target) for target in targets],
        sidecars=[{"Description": "map"}, {}],
        header_file=dwi_file,
    ).run(cwd=tmp_path)
    assert targets[1].read_bytes() == bval.read_bytes()
    np.testing.assert_allclose(nib.load(targets[0]).affine, AFFINE)
    assert sorted(path.name for path in targets[0].parent.iterdir()) == ["a_FA.json", "a_FA.nii.gz", "a_dwi.bval"]


def save_maps_of_a_check(dwi_file, folder, n_files):
    names = [folder / f"sub-01_desc-check_{suffix}.nii.gz" for suffix in ("dwimap", "FA")]
    interface = SaveDerivatives(
        out_files=[str(name) for name in names],
        sidecars=[{"Description": name.name} for name in names],
        header_file=dwi_file,
        optional=True,
        found={"BValues": [0.0, 1000.0]},
    )
    if n_files:
        interface.inputs.in_files = [dwi_file] * n_files
    return names, interface.run(cwd=folder).outputs.out_files


def test_a_check_saves_as_many_maps_as_it_has_with_what_it_found(dwi_file, tmp_path):
    names, saved = save_maps_of_a_check(dwi_file, tmp_path, 1)
    assert saved == str(names[0])
    sidecar = json.loads((tmp_path / "sub-01_desc-check_dwimap.json").read_text())
    assert sidecar == {"Description": names[0].name, "BValues": [0.0, 1000.0]}
    assert not names[1].exists()


def test_maps_that_a_check_no_longer_has_are_removed(dwi_file, tmp_path):
    names, _ = save_maps_of_a_check(dwi_file, tmp_path, 2)
    assert all(name.exists() for name in names)
    _, saved = save_maps_of_a_check(dwi_file, tmp_path, 0)
    assert not isdefined(saved)
    assert not list(tmp_path.glob("*desc-check*"))


def test_the_summary_counts_volumes_per_shell():
    summary = summarize(Gradients(BVALS, np.eye(4, 3)), 50.0)
    assert summary == {"n_volumes": 4, "n_b0": 2, "shells": [{"b": 1000, "n": 1}, {"b": 2000, "n": 1}]}


def test_the_volume_shown_is_of_the_lowest_shell():
    bvals = np.array([2000.0, 0.0, 1000.0, 1000.0])
    assert volume_to_show(Gradients(bvals, np.eye(4, 3)), 50.0) == 2


def test_progress_hands_items_on_and_ends_with_the_last(capsys):
    assert list(show_progress(iter(range(20)), 20, "sub-01")) == list(range(20))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 11
    assert lines[-1].startswith("sub-01: 20 of 20")


class _Fails(CoreInterface):
    def _execute(self, folder):
        raise ZeroDivisionError("no")


def test_a_bug_is_noted_and_still_raised(tmp_path):
    with pytest.raises(ZeroDivisionError):
        _Fails().run(cwd=tmp_path)
    assert Failure.read(tmp_path) == Failure("ZeroDivisionError: no", 1)


class _Draws(CoreInterface):
    drawn: list = []  # noqa: RUF012

    def _execute(self, folder):
        self.drawn.append(np.random.random())
        return {}


def test_the_same_seed_draws_the_same_numbers(tmp_path):
    for seed in (1, 1, 2):
        _Draws(random_seed=seed).run(cwd=tmp_path)
    assert _Draws.drawn[0] == _Draws.drawn[1] != _Draws.drawn[2]
