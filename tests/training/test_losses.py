"""The losses have the values that mathematics gives them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from bids_sr.demo.acquisition import spread_directions
from bids_sr.dwi.gradients import Gradients
from bids_sr.dwi.tensor import fit_tensor
from bids_sr.errors import TrainingDataError
from bids_sr.training.losses import (
    DYNAMIC_RANGE,
    SIGNAL_FLOOR,
    WHITE,
    PerceptualLoss,
    dissimilarity,
    fine_grid,
    fourier_l1,
    loss_terms,
    tensor_l1,
)
from bids_sr.training.settings import Loss, Perceptual
from tests.made_models import save_narrow_vgg

GRID = (4, 6, 5)
N_VOXELS = 4 * 6 * 5


def patches(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def spectrum(error: torch.Tensor, norm: str) -> np.ndarray:
    return np.fft.fftn(error.numpy().reshape(-1, *GRID), axes=(1, 2, 3), norm=norm)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["backward", "ortho"]))
def test_the_fourier_term_is_the_mean_modulus_of_the_difference_of_two_spectra(seed, norm):
    """Not the difference of two moduli, which is blind to a shift."""
    restored, truth = patches(seed, 2, N_VOXELS), patches(seed + 1, 2, N_VOXELS)
    expected = np.abs(spectrum(restored, norm) - spectrum(truth, norm)).mean()
    assert fourier_l1(restored, truth, GRID, norm).item() == pytest.approx(expected, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_it_is_bounded_by_parsevals_theorem(seed):
    """The mean square of the orthonormal spectrum is that of the error, and bounds the square of the mean modulus."""
    error = patches(seed, 3, N_VOXELS)
    term = fourier_l1(error, torch.zeros_like(error), GRID, "ortho").item()
    rms = error.square().mean().sqrt().item()
    assert 0.75 * rms < term <= rms * (1 + 1e-6)


def test_the_norms_differ_by_the_root_of_the_number_of_voxels():
    error, zero = patches(0, 1, N_VOXELS), torch.zeros(1, N_VOXELS)
    ratio = fourier_l1(error, zero, GRID, "backward") / fourier_l1(error, zero, GRID, "ortho")
    assert ratio.item() == pytest.approx(N_VOXELS**0.5, rel=1e-5)


def test_of_a_sine_two_coefficients_remain():
    """A sine of amplitude a along one axis has two coefficients of a N / 2."""
    wave = torch.sin(2 * torch.pi * torch.arange(6) / 6)[None, None, :, None].expand(1, *GRID)
    term = fourier_l1(3 * wave.flatten(1), torch.zeros(1, N_VOXELS), GRID, "backward")
    assert term.item() == pytest.approx(2 * 3 * N_VOXELS / 2 / N_VOXELS, rel=1e-5)


def test_points_are_ordered_with_the_last_axis_fastest():
    """A wave along the last axis has its two coefficients only if the points are put on the grid in that order."""
    wave = torch.cos(2 * torch.pi * torch.arange(5) / 5).repeat(1, 4 * 6)
    assert fourier_l1(wave, torch.zeros_like(wave), GRID, "backward").item() == pytest.approx(1.0, rel=1e-5)


def test_its_gradient_is_finite_where_the_error_is_zero():
    restored = torch.zeros(1, N_VOXELS, requires_grad=True)
    fourier_l1(restored, torch.zeros(1, N_VOXELS), GRID, "backward").backward()
    assert torch.equal(restored.grad, torch.zeros_like(restored))


def test_under_autocast_the_transform_is_of_full_precision():
    error = patches(3, 1, N_VOXELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = fourier_l1(error.bfloat16(), torch.zeros(1, N_VOXELS), GRID, "ortho")
    assert term.dtype == torch.float32
    expected = np.abs(spectrum(error.bfloat16().float(), "ortho")).mean()
    assert term.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    restored, truth = patches(1, 2, N_VOXELS), patches(2, 2, N_VOXELS)
    terms = loss_terms(restored, truth, GRID, Loss(l1=0.5, l2=2.0, fourier=0.01, fourier_norm="ortho"))
    error = (restored - truth).numpy()
    assert terms["l1"].item() == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert terms["l2"].item() == pytest.approx((error**2).mean(), rel=1e-5)
    expected = 0.5 * terms["l1"] + 2 * terms["l2"] + 0.01 * terms["fourier"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_terms_without_weight_are_not_computed():
    terms = loss_terms(torch.zeros(1, 7), torch.ones(1, 7), None, Loss(l1=0.0, l2=3.0))
    assert set(terms) == {"l2", "loss"}
    assert terms["loss"].item() == 3


@pytest.mark.parametrize("grid", [None, (4, 4, 4)])
def test_the_fourier_term_is_refused_without_whole_patches(grid):
    with pytest.raises(TrainingDataError, match="points = 0"):
        loss_terms(torch.zeros(1, 7), torch.ones(1, 7), grid, Loss(fourier=0.01))


WIDE = (8, 10, 9)


def images(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two patches with a signal, and versions of them with noise and another contrast, (2, voxels)."""
    truth = 0.8 + 0.4 * patches(seed, 2, 8 * 10 * 9)
    return 0.9 * truth + 0.05 + 0.2 * patches(seed + 1, *truth.shape), truth


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_ssim_term_is_that_of_scikit_image(seed):
    restored, truth = images(seed)
    expected = [
        structural_similarity(
            one.double().numpy().reshape(WIDE), other.double().numpy().reshape(WIDE), data_range=DYNAMIC_RANGE
        )
        for one, other in zip(restored, truth, strict=True)
    ]
    assert dissimilarity(restored, truth, WIDE).item() == pytest.approx(1 - np.mean(expected), abs=1e-5)


def test_of_equal_patches_the_dissimilarity_is_zero_and_stays_finite_where_nothing_is_there():
    _, truth = images(3)
    assert dissimilarity(truth, truth, WIDE).item() == pytest.approx(0, abs=1e-6)
    nothing = torch.zeros(1, 8 * 10 * 9, requires_grad=True)
    dissimilarity(nothing, torch.zeros_like(nothing), WIDE).backward()
    assert nothing.grad.isfinite().all()


def test_its_gradient_is_that_of_finite_differences_and_leads_to_the_truth():
    restored, truth = images(5)
    restored.requires_grad_()
    dissimilarity(restored, truth, WIDE).backward()
    direction, step = patches(9, *restored.shape), 1e-2
    with torch.no_grad():
        ahead, behind = (dissimilarity(restored + sign * step * direction, truth, WIDE).item() for sign in (1, -1))
    assert (restored.grad * direction).sum().item() == pytest.approx((ahead - behind) / (2 * step), rel=0.02)
    found = restored.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([found], lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        dissimilarity(found, truth, WIDE).backward()
        optimizer.step()
    assert (found - truth).abs().mean() < 0.5 * (restored - truth).abs().mean()


def test_the_ssim_term_of_half_precision_is_computed_in_full():
    restored, truth = images(7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = dissimilarity(restored.bfloat16(), truth, WIDE)
    assert term.dtype == torch.float32
    assert term.item() == pytest.approx(dissimilarity(restored.bfloat16().float(), truth, WIDE).item(), abs=1e-6)


def test_the_ssim_term_is_weighted_and_refused_without_whole_patches():
    restored, truth = images(8)
    terms = loss_terms(restored, truth, WIDE, Loss(l1=1.0, ssim=0.3))
    assert set(terms) == {"l1", "ssim", "loss"}
    assert terms["loss"].item() == pytest.approx(terms["l1"].item() + 0.3 * terms["ssim"].item(), rel=1e-6)
    with pytest.raises(TrainingDataError, match="the ssim term needs whole patches: points = 0"):
        loss_terms(restored, truth, None, Loss(ssim=0.3))


def test_the_fine_grid_follows_from_patch_and_cell():
    channels, cell = torch.zeros(2, 1, 10, 10, 10), torch.full((2, 3), 10 / 23)
    assert fine_grid(channels, cell, 23**3) == (23, 23, 23)
    with pytest.raises(TrainingDataError, match="points = 0"):
        fine_grid(channels, cell, 2048)
    with pytest.raises(TrainingDataError, match="one scale"):
        fine_grid(channels, cell * torch.tensor([[1.0], [0.5]]), 23**3)


# By the features of VGG19


@pytest.fixture
def perceptual(monkeypatch, tmp_path):
    """The term by the features of a shallow layer, with weights that learned nothing."""
    torch.set_num_threads(1)
    return PerceptualLoss(Perceptual(str(save_narrow_vgg(monkeypatch, tmp_path)), layer="1_2"))


def test_the_perceptual_term_is_the_mean_over_the_slices_of_three_axes(perceptual):
    restored, truth = patches(1, 1, N_VOXELS), patches(2, 1, N_VOXELS)
    expected = []
    for axis in range(3):
        one, other = (
            torch.stack(volume.reshape(GRID).unbind(axis))[:, None] / WHITE for volume in (restored[0], truth[0])
        )
        expected.append((perceptual.network(one, "1_2") - perceptual.network(other, "1_2")).square().mean().item())
    assert perceptual(restored, truth, GRID).item() == pytest.approx(np.mean(expected), rel=1e-4)
    assert perceptual(truth, truth, GRID).item() == 0


def test_the_perceptual_term_leads_to_the_truth_and_leaves_vgg_as_it_is(perceptual):
    restored, truth = patches(3, 1, N_VOXELS), patches(4, 1, N_VOXELS)
    restored.requires_grad_()
    perceptual(restored, truth, GRID).backward()
    assert (restored.grad * (restored.detach() - truth)).sum() > 0
    assert not any(parameter.requires_grad for parameter in perceptual.network.parameters())


def test_the_perceptual_term_is_weighted(perceptual):
    restored, truth = patches(5, 1, N_VOXELS), patches(6, 1, N_VOXELS)
    weights = Loss(perceptual=Perceptual("x", weight=0.3))
    terms = loss_terms(restored, truth, GRID, weights, perceptual=perceptual)
    assert terms["loss"].item() == pytest.approx(terms["l1"].item() + 0.3 * terms["perceptual"].item(), rel=1e-6)


# Of the tensor


def diffusion(seed: int, count: int) -> np.ndarray:
    """Tensors, (count, 3, 3), in 1e-3 mm2/s, none so large that a signal falls below the floor."""
    root = np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 3, 3))
    return root @ root.transpose(0, 2, 1) + 0.3 * np.eye(3)


def signals(tensors: np.ndarray, gradients: np.ndarray, levels: np.ndarray) -> torch.Tensor:
    """Signals, (V, Q), of tensors at gradients, (V, 4), each volume in units of its own."""
    decay = np.einsum("vi,qij,vj->vq", gradients[:, 1:], tensors, gradients[:, 1:])
    return torch.from_numpy(levels[:, None] * np.exp(-gradients[:, :1] * decay)).float()


def protocol(n_directions: int = 9) -> np.ndarray:
    """A b0 and b = 1 ms/um2, (V, 4)."""
    weighted = np.column_stack([np.ones(n_directions), spread_directions(n_directions)])
    return np.vstack([[0.0, 0, 0, 0], weighted])


@pytest.mark.parametrize("n_directions", [6, 9])
def test_the_tensor_term_is_the_error_of_the_tensor_whatever_the_units_are(n_directions):
    gradients = protocol(n_directions)
    levels = np.random.default_rng(0).uniform(1, 2, len(gradients))
    places = [(diffusion(seed, 20), diffusion(seed + 1, 20)) for seed in (1, 5)]
    restored, truth = (torch.cat([signals(place[i], gradients, levels) for place in places]) for i in range(2))
    table = torch.from_numpy(np.vstack([gradients, gradients])).float()
    expected = np.mean([np.abs(one - other) for one, other in places])
    assert tensor_l1(restored, truth, table, len(gradients)).item() == pytest.approx(expected, rel=1e-3)
    assert tensor_l1(truth, truth, table, len(gradients)).item() == 0


def test_the_tensor_is_that_of_the_application():
    """Isotropic tensors without noise: three of nine elements are wrong by what the mean diffusivities differ by."""
    gradients, mask = protocol(), np.ones((5, 2, 1), bool)
    restored, truth = (
        signals(factor * np.linspace(0.5, 1, 10)[:, None, None] * np.eye(3), gradients, np.ones(10))
        for factor in (1.0, 1.3)
    )
    table = Gradients(1000 * gradients[:, 0], gradients[:, 1:])
    first, second = (
        fit_tensor(series.numpy().T.reshape(5, 2, 1, -1), table, 50, mask).md for series in (restored, truth)
    )
    term = tensor_l1(restored, truth, torch.from_numpy(gradients).float(), 10)
    assert term.item() == pytest.approx(1e3 * np.abs(first - second).mean() / 3, rel=1e-3)


def test_signals_below_the_floor_count_as_the_floor():
    gradients = torch.from_numpy(protocol(6)).float()
    truth = torch.from_numpy(np.random.default_rng(0).uniform(0.5, 1, (7, 3))).float()
    nothing, floor = torch.zeros(7, 3, requires_grad=True), torch.full((7, 3), SIGNAL_FLOOR)
    term = tensor_l1(nothing, truth, gradients, 7)
    assert term.item() == pytest.approx(tensor_l1(floor, truth, gradients, 7).item())
    term.backward()
    assert nothing.grad.isfinite().all()


def test_the_tensor_term_needs_gradients():
    restored, truth = patches(1, 7, 3).abs() + 0.1, patches(2, 7, 3).abs() + 0.1
    with pytest.raises(TrainingDataError, match="patches with their gradients"):
        loss_terms(restored, truth, None, Loss(tensor=1.0), volumes=7)
    gradients = torch.from_numpy(protocol(6)).float()
    terms = loss_terms(restored, truth, None, Loss(tensor=0.5), gradients=gradients, volumes=7)
    assert terms["loss"].item() == pytest.approx(terms["l1"].item() + 0.5 * terms["tensor"].item())
