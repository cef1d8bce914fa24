"""Tensors that are known must come back; whatever the signals, the maps are finite."""

import shutil
import subprocess
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from bids_sr.dwi import tensor
from bids_sr.dwi.comparison import angles
from bids_sr.dwi.gradients import Gradients, dipy_table
from bids_sr.dwi.tensor import (
    TensorMaps,
    colour_fa,
    fit_tensor,
    fit_tensor_elements,
    masked_signals,
    slabs,
    volumes_for_tensor,
    world_rotation,
)
from tests.dwi.made_series import directions, one_shell, signals, tensors

EIGENVALUES = np.array([[1.7e-3, 0.3e-3, 0.3e-3], [1.2e-3, 0.8e-3, 0.4e-3], [3e-3, 2.9e-3, 2.8e-3], [0.8e-3] * 3])


def known_fa(eigenvalues):
    deviation = eigenvalues - eigenvalues.mean(axis=1, keepdims=True)
    return np.sqrt(1.5 * (deviation**2).sum(axis=1) / (eigenvalues**2).sum(axis=1))


def fit_columns(values, gradients, method="WLS"):
    """Fit voxels given as (n, volumes)."""
    data = values[:, None, None, :]
    return fit_tensor(data, gradients, 50, np.ones(data.shape[:3], bool), method)


@pytest.mark.parametrize("method", ["WLS", "OLS"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_noise_free_tensors_are_recovered_in_any_unit(method, scale):
    made, v1 = tensors(EIGENVALUES)
    maps = fit_columns(signals(made, one_shell(), s0=scale), one_shell(), method)
    np.testing.assert_allclose(maps.fa.ravel(), known_fa(EIGENVALUES), atol=1e-4)
    np.testing.assert_allclose(maps.md.ravel(), EIGENVALUES.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(maps.ad.ravel(), EIGENVALUES[:, 0], rtol=1e-4)
    np.testing.assert_allclose(maps.rd.ravel(), EIGENVALUES[:, 1:].mean(axis=1), rtol=1e-4)
    assert angles(maps.v1[:2, 0, 0], v1[:2]).max() < 0.01


def noisy_case(seed=0, n=300):
    rng = np.random.default_rng(seed)
    made, _ = tensors(np.sort(rng.uniform(0.2e-3, 2e-3, (n, 3)))[:, ::-1], seed)
    clean = signals(made, one_shell())
    return np.abs(clean + rng.normal(0, 40, clean.shape))


def test_the_weighted_fit_is_that_of_dipy():
    from dipy.reconst.dti import TensorModel

    values = noisy_case()
    theirs = TensorModel(dipy_table(one_shell(), 50), fit_method="WLS").fit(values)
    ours = fit_columns(values, one_shell())
    np.testing.assert_allclose(ours.fa.ravel(), theirs.fa, atol=1e-4)
    np.testing.assert_allclose(ours.md.ravel(), theirs.md, rtol=1e-4)


def test_the_sign_of_a_gradient_has_no_meaning():
    values, gradients = noisy_case(), one_shell()
    signs = np.random.default_rng(1).choice([-1, 1], size=(len(gradients), 1))
    flipped = fit_columns(values, Gradients(gradients.bvals, gradients.bvecs * signs))
    np.testing.assert_allclose(flipped.fa, fit_columns(values, gradients).fa, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_turned_gradients_turn_the_direction_and_nothing_else(seed):
    turn = Rotation.random(random_state=seed).as_matrix()
    gradients, values = one_shell(), noisy_case(n=40)
    turned = fit_columns(values, Gradients(gradients.bvals, gradients.bvecs @ turn.T))
    straight = fit_columns(values, gradients)
    np.testing.assert_allclose(turned.fa, straight.fa, atol=1e-4)
    clear = (straight.fa > 0.3).ravel()
    assert np.median(angles(straight.v1[:, 0, 0][clear] @ turn.T, turned.v1[:, 0, 0][clear])) < 0.1


values_of_all_kinds = st.one_of(st.floats(-1e3, 1e6, width=32), st.sampled_from([0.0, np.nan, np.inf, -np.inf, 1e-30]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(values_of_all_kinds, min_size=21, max_size=21), min_size=1, max_size=4))
@example([[1e-45] + [0.0] * 20])
def test_maps_are_finite_whatever_the_signals(rows):
    maps = fit_columns(np.array(rows, dtype=np.float32), one_shell())
    for name in ("fa", "md", "ad", "rd", "v1"):
        assert np.isfinite(getattr(maps, name)).all(), name
    assert maps.fa.min() >= 0
    assert maps.fa.max() <= 1
    assert maps.md.min() >= 0


def test_zero_outside_the_mask_and_without_signal():
    values = noisy_case(n=4).reshape(2, 2, 1, 21)
    values[1, 1] = 0
    mask = np.array([[True, False], [False, True]])[..., None]
    maps = fit_tensor(values, one_shell(), 50, mask)
    assert maps.fa[0, 0, 0] > 0
    for rest in ([0, 1], [1, 0], [1, 1]):
        assert maps.md[rest[0], rest[1], 0] == 0
        assert not maps.v1[rest[0], rest[1], 0].any()


def test_an_empty_mask_gives_zeros():
    maps = fit_tensor(noisy_case(n=8).reshape(2, 2, 2, 21), one_shell(), 50, np.zeros((2, 2, 2), bool))
    assert not maps.fa.any()
    assert maps.v1.shape == (2, 2, 2, 3)


def test_a_lost_volume_moves_the_fit_little():
    made, _ = tensors(EIGENVALUES)
    values = signals(made, one_shell(60))
    values[:, 30] = 0
    maps = fit_columns(values, one_shell(60))
    assert np.abs(maps.md.ravel() / EIGENVALUES.mean(axis=1) - 1).max() < 0.25


def test_high_shells_are_left_out_where_a_low_one_suffices():
    def table(n_low):
        bvals = np.r_[0.0, np.full(n_low, 1000), np.full(30, 3000)]
        return Gradients(bvals, np.vstack([np.zeros(3), directions(n_low), directions(30)]))

    assert len(volumes_for_tensor(table(12), 50)) == 13
    assert len(volumes_for_tensor(table(5), 50)) == 36


def test_a_shell_takes_part_as_a_whole():
    """Scanners tell b-values of one shell that differ by some s/mm2."""
    n = 30
    bvals = np.r_[0.0, np.tile([1495.0, 1500.0, 1520.0], n // 3), np.full(n, 3000)]
    table = Gradients(bvals, np.vstack([np.zeros(3), directions(n), directions(n)]))
    np.testing.assert_array_equal(volumes_for_tensor(table, 50), np.arange(n + 1))


def test_any_volumes_are_read_in_bounded_stretches():
    data = np.random.default_rng(0).random((2, 3, 2, 50)).astype(np.float32)
    mask, volumes = np.ones((2, 3, 2), bool), np.array([0, 1, 20, 21, 22, 49])
    read = []

    class Stretches:
        shape = data.shape

        def __getitem__(self, index):
            read.append(index[-1].stop - index[-1].start)
            return data[index]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor, "_READ_BYTES", 8 * mask.size * 4)
        found = masked_signals(Stretches(), volumes, mask)
    np.testing.assert_array_equal(found, data[mask][:, volumes])
    assert read == [2, 3, 1]


def test_chunks_do_not_show(monkeypatch):
    values = noisy_case()
    whole = fit_columns(values, one_shell())
    monkeypatch.setattr(tensor, "CHUNK", 7)
    monkeypatch.setattr(tensor, "_READ_BYTES", 1)
    np.testing.assert_allclose(fit_columns(values, one_shell()).fa, whole.fa, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(arrays(bool, (3, 2, 7)), st.integers(1, 400))
def test_slabs_hold_each_voxel_of_the_mask_once_and_no_more_than_they_may(mask, held):
    n_volumes = 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor, "HELD_BYTES", held)
        found = list(slabs(mask, n_volumes))
    data = np.random.default_rng(0).random((*mask.shape, n_volumes)).astype(np.float32)
    signals = np.zeros((int(mask.sum()), n_volumes), np.float32)
    for slab in found:
        signals[slab.voxels] += masked_signals(data, np.arange(n_volumes), mask, slab.planes)
        one_plane = slab.planes.stop == slab.planes.start + 1
        assert one_plane or 4 * n_volumes * slab.voxels.sum() <= held
    np.testing.assert_array_equal(signals, data[mask])


def test_slabs_do_not_show(monkeypatch):
    values = noisy_case(n=24).reshape(2, 3, 4, 21)
    mask = np.random.default_rng(0).random((2, 3, 4)) < 0.7
    whole = fit_tensor(values, one_shell(), 50, mask)
    monkeypatch.setattr(tensor, "HELD_BYTES", 1)
    assert len(list(slabs(mask, 21))) == 4
    np.testing.assert_array_equal(fit_tensor(values, one_shell(), 50, mask).v1, whole.v1)


def test_memory_is_that_of_the_masked_signals_and_some_chunks():
    values = np.tile(noisy_case(n=300), (200, 1)).astype(np.float32)[:, None, None, :]
    mask = np.ones(values.shape[:3], bool)
    fit_tensor(values[:100], one_shell(), 50, mask[:100])
    tracemalloc.start()
    fit_tensor(values, one_shell(), 50, mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * values.nbytes + 150 * 2**20


def test_colours_follow_the_world_in_a_turned_grid():
    v1 = np.zeros((1, 1, 1, 3), np.float32)
    v1[..., 2] = 1
    one = np.ones((1, 1, 1), np.float32)
    maps = TensorMaps(one, one, one, one, v1)
    sagittal = np.array([[0, 0, 2.7, 0], [2.7, 0, 0, 0], [0, 2.7, 0, 0], [0, 0, 0, 1.0]])
    np.testing.assert_array_equal(colour_fa(maps)[0, 0, 0], [0, 0, 255])
    np.testing.assert_array_equal(colour_fa(maps, sagittal)[0, 0, 0], [255, 0, 0])


def test_the_world_rotation_flips_x_of_a_right_handed_grid():
    np.testing.assert_allclose(world_rotation(np.diag([2, 2, 2, 1])), np.diag([-1, 1, 1]))
    np.testing.assert_allclose(world_rotation(np.diag([-2, 2, 2, 1])), np.diag([-1, 1, 1]))


@pytest.mark.mrtrix
@pytest.mark.skipif(shutil.which("dwi2tensor") is None, reason="MRtrix's dwi2tensor is not installed")
def test_the_ordinary_fit_is_that_of_mrtrix(tmp_path):
    from dipy.data import get_fnames

    data_file, bval_file, bvec_file = get_fnames(name="small_64D")
    image = nib.load(data_file)
    bvals, bvecs = np.loadtxt(bval_file), np.nan_to_num(np.loadtxt(bvec_file))
    gradients = Gradients(bvals, bvecs if bvecs.shape[1] == 3 else bvecs.T)
    data = image.get_fdata()
    table = dipy_table(gradients, 50)
    np.savetxt(tmp_path / "bvecs", table.bvecs.T)
    np.savetxt(tmp_path / "bvals", bvals[None])
    nib.Nifti1Image(data, image.affine).to_filename(tmp_path / "dwi.nii")
    run = {"check": True, "cwd": tmp_path, "capture_output": True}
    fit = ["dwi2tensor", "-quiet", "-ols", "-iter", "0", "-fslgrad", "bvecs", "bvals", "dwi.nii", "tensor.nii"]
    subprocess.run(fit, **run)
    subprocess.run(["tensor2metric", "-quiet", "tensor.nii", "-fa", "fa.nii", "-adc", "md.nii"], **run)
    ours = fit_tensor(data, gradients, 50, np.ones(data.shape[:3], bool), "OLS")
    theirs = nib.load(tmp_path / "fa.nii").get_fdata()
    assert np.median(np.abs(ours.fa - theirs)) < 1e-5
    assert np.median(np.abs(ours.md / nib.load(tmp_path / "md.nii").get_fdata() - 1)) < 1e-3


def test_the_tensor_itself_comes_back_in_the_axes_of_the_world():
    made, _ = tensors(EIGENVALUES)
    values = signals(made, one_shell())[:, None, None, :]
    mask = np.array([True, True, True, False])[:, None, None]
    turn = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn * 2.0
    maps, elements = fit_tensor_elements(values, affine, one_shell(), 50, mask)
    # The b-vectors of a file count along the voxel axes, the first of them reversed where the affine is right-handed.
    to_world = turn @ np.diag([-1.0, 1.0, 1.0])
    expected = (to_world @ made @ to_world.T)[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    np.testing.assert_allclose(elements.tensor[:3, 0, 0], expected[:3], atol=2e-7)
    np.testing.assert_allclose(elements.eigenvalues[:3, 0, 0], EIGENVALUES[:3], rtol=1e-3)
    vectors = elements.eigenvectors.reshape(4, 3, 3)
    np.testing.assert_allclose(vectors[:3] @ np.swapaxes(vectors[:3], 1, 2), np.stack([np.eye(3)] * 3), atol=1e-5)
    assert not elements.tensor[3].any() and not elements.eigenvectors[3].any()
    alone = fit_tensor(values, one_shell(), 50, mask)
    assert all(np.array_equal(getattr(maps, name), getattr(alone, name)) for name in ("fa", "md", "ad", "rd", "v1"))


@pytest.mark.mrtrix
@pytest.mark.skipif(shutil.which("dwi2tensor") is None, reason="MRtrix's dwi2tensor is not installed")
@pytest.mark.parametrize("flip", [1.0, -1.0], ids=["right-handed", "left-handed"])
def test_mrtrix_finds_the_same_tensor_and_reads_ours(tmp_path, flip):
    """Elements one by one, in an oblique image of either handedness: order, axes and signs are MRtrix's."""
    made, _ = tensors(np.tile(EIGENVALUES[:2], (32, 1)), seed=3)
    gradients = one_shell()
    data = signals(made, gradients).reshape(4, 4, 4, -1).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix() @ np.diag([2.0 * flip, 2, 3])
    nib.Nifti1Image(data, affine).to_filename(tmp_path / "dwi.nii")
    np.savetxt(tmp_path / "bvecs", gradients.bvecs.T)
    np.savetxt(tmp_path / "bvals", gradients.bvals[None])
    run = {"check": True, "cwd": tmp_path, "capture_output": True}
    fit = ["dwi2tensor", "-quiet", "-ols", "-iter", "0", "-fslgrad", "bvecs", "bvals", "dwi.nii", "tensor.nii"]
    subprocess.run(fit, **run)
    maps, ours = fit_tensor_elements(data, affine, gradients, 50, np.ones(data.shape[:3], bool), "OLS")
    np.testing.assert_allclose(ours.tensor, nib.load(tmp_path / "tensor.nii").get_fdata(), atol=1e-6)
    nib.Nifti1Image(ours.tensor, affine).to_filename(tmp_path / "ours.nii")
    subprocess.run(["tensor2metric", "-quiet", "ours.nii", "-fa", "fa.nii"], **run)
    np.testing.assert_allclose(nib.load(tmp_path / "fa.nii").get_fdata(), maps.fa, atol=1e-3)
