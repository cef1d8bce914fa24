"""A restored series lies where the scan lay, and differs from interpolation only around the brain."""

import time

import numpy as np
import pytest
import torch

from bids_sr.dwi.t1w import T1wImage
from bids_sr.errors import ScaleTooLargeError
from bids_sr.geometry import Grid, from_canonical, points_in
from bids_sr.inference import upsampler
from bids_sr.inference.upsampler import (
    GROWTH,
    Stencils,
    ahead,
    check_scale,
    halo,
    plan_restoration,
    restore_mask,
    restore_volumes,
)
from bids_sr.models.base import NORMALIZATIONS, SUBPOSITIONS, Signal, TrainableModel
from bids_sr.models.interpolation import CubicSpline, cubic_on_grid
from bids_sr.models.registry import ModelCard, build_model

SMALL = {"features": 8, "growth": 8, "blocks": 2, "layers": 2, "feature_channels": 8, "hidden": 16,
         "stages": 1, "coordinates": "cell", "residual": True}  # fmt: skip
PLAIN = Signal()
GUIDED = Signal(("volume", "b0", "shell", "t1w"))
torch.set_num_threads(1)


def network(n_channels: int = 3, *, head: float = 0.5, seed: int = 0) -> TrainableModel:
    """A small CSR-dMRI with random weights; with a `head` of zero it interpolates."""
    torch.manual_seed(seed)
    model = build_model("csr_dmri", SMALL, n_channels)
    last = list(model.decoder.parameters())[-2]
    torch.nn.init.normal_(last, std=head)
    return model.eval().requires_grad_(False)


GRID = Grid((14, 15, 12), np.array([[-2.0, 0, 0, 14], [0, 2, 0.3, -15], [0, -0.3, 2, -12], [0, 0, 0, 1]]))
BVALS = np.array([0.0, 1000, 1000])
CPU = torch.device("cpu")


@pytest.fixture
def series():
    return np.random.default_rng(0).uniform(50, 150, (*GRID.shape, 3)).astype(np.float32)


@pytest.fixture
def mask():
    mask = np.zeros(GRID.shape, bool)
    mask[5:9, 5:10, 4:8] = True
    return mask


def restored(series, target, mask, model, signal=PLAIN, t1w=None, guide=None):
    volumes = restore_volumes(
        series, BVALS, GRID, target, mask, model, signal=signal, t1w=t1w, guide=guide, b0_threshold=50, device=CPU
    )
    return np.stack(list(volumes), -1)


def test_cubic_as_a_model_is_cubic_interpolation(series, mask):
    target = GRID.resized((25, 20, 30))
    expected = np.stack([cubic_on_grid(series[..., i], GRID, target) for i in range(3)], -1)
    np.testing.assert_allclose(restored(series, target, mask, CubicSpline()), expected.clip(0), rtol=2e-3)


def test_a_network_changes_nothing_away_from_the_brain(series, mask):
    target = GRID.resized((28, 30, 24))
    plan = plan_restoration(mask, GRID, target, 12)
    cubic = restored(series, target, mask, CubicSpline())
    result = restored(series, target, mask, network())
    np.testing.assert_allclose(result[~plan.voxels], cubic[~plan.voxels], rtol=1e-4)
    assert not np.allclose(result[plan.voxels], cubic[plan.voxels])
    assert result.min() >= 0


def test_scale_one_gives_the_scan_back(series, mask):
    for model in (CubicSpline(), network()):
        np.testing.assert_allclose(restored(series, GRID, mask, model), series, rtol=1e-4)


def test_the_gain_of_the_scanner_passes_through(series, mask):
    model, target = network(), GRID.resized((28, 30, 24))
    np.testing.assert_allclose(
        restored(series * 10, target, mask, model), 10 * restored(series, target, mask, model), rtol=1e-3, atol=0.1
    )


def test_a_world_ramp_stays_in_place(mask):
    """An untrained residual network interpolates, so a ramp must come out as a ramp on any target grid."""
    ramp = np.repeat((GRID.affine[:3, :3] @ np.indices(GRID.shape).reshape(3, -1) + GRID.affine[:3, 3:])[1], 3)
    series = (ramp.reshape(*GRID.shape, 3) + 100).astype(np.float32)
    target = GRID.at_resolution(np.array([1.3, 0.9, 1.7]))
    world = (target.affine[:3, :3] @ np.indices(target.shape).reshape(3, -1) + target.affine[:3, 3:])[1] + 100
    inside = restore_mask(mask, GRID, target)
    result = restored(series, target, mask, network(head=0))[..., 1]
    np.testing.assert_allclose(result[inside], world.reshape(target.shape)[inside], atol=2e-3)


def test_a_mask_on_the_target_grid_fills_the_same_cells(mask):
    fine = restore_mask(mask, GRID, GRID.resized((28, 30, 24)))
    np.testing.assert_array_equal(fine, mask.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_what_is_restored_reaches_beyond_the_mask(mask):
    plan = plan_restoration(mask, GRID, GRID, 12)
    assert plan.voxels[5 - GROWTH, 7, 6] and not plan.voxels[4 - GROWTH, 7, 6]


def test_a_magnification_beyond_the_model_is_refused():
    card = ModelCard("narrow", "For tests.", "csr_dmri", scale_range=(1.0, 2.0))
    check_scale(GRID, GRID.scaled(np.array([2.0, 1.5, 2.0])), card, "scan")
    with pytest.raises(ScaleTooLargeError, match=r"scan: .* x 0.6741 mm is 3.00 times finer .* at most 2 times"):
        check_scale(GRID, GRID.scaled(np.array([1.0, 1.0, 3.0])), card, "scan")


def test_a_mask_at_the_border_of_the_field_of_view(series):
    mask = np.ones(GRID.shape, bool)
    assert np.isfinite(restored(series, GRID.resized((20, 20, 20)), mask, network())).all()


WEAKER = np.array([3, 1, 0.8], np.float32)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_network_that_changes_nothing_gives_the_brain_back_with_any_normalization(series, mask, normalization):
    signal = Signal(("volume", "b0", "shell"), normalization)
    result = restored(series * WEAKER, GRID, mask, network(head=0), signal)
    np.testing.assert_allclose(result, series * WEAKER, rtol=1e-4)


def test_divided_by_the_b0_the_brain_alone_is_restored(series, mask):
    signal, target = Signal(normalization="b0"), GRID.resized((28, 30, 24))
    plan = plan_restoration(mask, GRID, target, 12, inside_only=True)
    np.testing.assert_array_equal(plan.voxels, restore_mask(mask, GRID, target))
    data = series * WEAKER
    cubic = np.stack([cubic_on_grid(data[..., i], GRID, target) for i in range(3)], -1)
    result = restored(data, target, mask, network(), signal)
    np.testing.assert_allclose(result[~plan.voxels], cubic[~plan.voxels], rtol=1e-4)
    assert not np.allclose(result[plan.voxels], cubic[plan.voxels])


def test_a_restored_ratio_is_multiplied_by_the_restored_b0(series, mask):
    """A network that multiplies what it is given by two makes b0 twice as bright and weighted volumes four times."""

    class Twice(CubicSpline):
        def query(self, encoded, points, cell):
            return 2 * super().query(encoded, points, cell)

    data = series * WEAKER
    result = restored(data, GRID, mask, Twice(), Signal(normalization="b0"))
    np.testing.assert_allclose(result[mask][:, 0], 2 * data[mask][:, 0], rtol=1e-3)
    np.testing.assert_allclose(result[mask][:, 1:], 4 * data[mask][:, 1:], rtol=1e-3)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_dark_or_damaged_b0_gives_numbers(series, mask, normalization):
    series[6, 6:8, 5] = 0
    series[7, 7, 6, 0] = np.nan
    series[7, 8, 6, 1] = np.inf
    result = restored(series, GRID.resized((20, 20, 20)), mask, network(), Signal(normalization=normalization))
    assert np.isfinite(result).all()


def test_the_t1w_guides_a_model_that_uses_it_and_is_zero_where_there_is_none(series, mask):
    target, model = GRID.resized((20, 21, 18)), network(4)
    t1w = np.random.default_rng(1).random(GRID.shape).astype(np.float32) * mask
    guided, other = (restored(series, target, mask, model, GUIDED, image) for image in (t1w, 1.2 * t1w))
    without, zeros = (restored(series, target, mask, model, GUIDED, image) for image in (None, np.zeros_like(t1w)))
    np.testing.assert_array_equal(without, zeros)
    assert not np.allclose(guided, without)
    assert not np.allclose(guided, other)


def test_a_model_without_t1w_never_sees_it(series, mask):
    t1w = np.ones(GRID.shape, np.float32)
    model, target = network(), GRID.resized((20, 21, 18))
    np.testing.assert_array_equal(restored(series, target, mask, model, t1w=t1w), restored(series, target, mask, model))


def test_the_lattice_is_the_target_grid(series, mask):
    """What a model is told will be asked for is asked for: whole steps from one of its points."""
    target, seen = GRID.at_resolution(np.array([1.3, 0.9, 1.7])), []

    class Spy(CubicSpline):
        def encode(self, channels, lattice):
            seen.append((channels.shape, lattice))
            return super().encode(channels, lattice)

        def query(self, encoded, points, cell):
            steps = (points.numpy() - seen[-1][1].origin) / seen[-1][1].cell
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
            np.testing.assert_allclose(cell, seen[-1][1].cell, rtol=1e-6)
            return super().query(encoded, points, cell)

    restored(series, target, mask, Spy(), Signal(("volume", "t1w")))
    assert len(seen) == 3
    assert {shape[:2] for shape, _ in seen} == {(1, 2)}
    low = plan_restoration(mask, GRID, target, Spy.radius).box
    first = points_in(GRID, target, np.zeros((1, 3), np.int64))[0] - [side.start for side in low]
    np.testing.assert_allclose(seen[0][1].origin, first)


@pytest.mark.parametrize("scale", [None, 2.0])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_network_on_a_grid_restores_like_any_other(series, mask, scale, normalization):
    """With a last layer of zeros it interpolates, so the brain of a smooth scan comes out as cubic interpolation."""
    torch.manual_seed(0)
    size = {"features": 4, "growth": 4, "blocks": 1, "layers": 1, "residual": True, "scale": scale}
    model = build_model("rdn", size, 3).eval().requires_grad_(False)
    wave = np.sin(np.indices(GRID.shape).sum(axis=0) / 2)
    smooth = ((200 + 50 * wave)[..., None] * WEAKER).astype(np.float32)
    target = GRID.resized((28, 30, 24))
    inside = restore_mask(mask, GRID, target)
    cubic = restored(smooth, target, mask, CubicSpline())
    # A signal divided by the b0 is cut off at the border of the brain.
    kept = inside if normalization == "shell" else restore_mask(mask & np.roll(mask, 2, 0), GRID, target) & inside
    result = restored(smooth, target, mask, model, Signal(normalization=normalization))
    np.testing.assert_allclose(result[kept][:, 0], cubic[kept][:, 0], rtol=0.01)
    assert np.isfinite(result).all()


def test_around_the_brain_as_much_is_encoded_as_the_model_sees():
    assert halo(3) == 3
    assert [halo(radius) for radius in (12, 17)] == [7, 7]
    assert halo(29) == 10
    assert halo(53) == 12
    assert all(halo(radius) <= radius for radius in range(60))


def test_what_lies_beyond_the_halo_hardly_changes_the_brain(monkeypatch):
    """As much as the model sees gives what the whole scan would; the halo comes close, a small one does not."""
    series = np.random.default_rng(3).uniform(50, 150, (25, 24, 24, 2)).astype(np.float32)
    grid = Grid((25, 24, 24), np.diag([2.0, 2, 2, 1]))
    mask = np.zeros(grid.shape, bool)
    mask[12:14, 11:13, 11:13] = True
    model, target = network(), grid.scaled(np.full(3, 1.3))
    inside = restore_mask(mask, grid, target)

    def brain(width):
        monkeypatch.setattr("bids_sr.inference.upsampler.halo", lambda radius: width)
        volumes = restore_volumes(
            series, BVALS[:2], grid, target, mask, model, signal=PLAIN, b0_threshold=50, device=CPU
        )
        return list(volumes)[1][inside]

    assert halo(model.radius) < model.radius
    usual, exact, narrow, whole = (brain(width) for width in (halo(model.radius), model.radius, 0, 25))
    limit = 1e-4 * np.ptp(exact)
    np.testing.assert_allclose(exact, whole, atol=1e-2 * limit)
    assert np.abs(usual - exact).max() < limit < np.abs(narrow - exact).max()


# Guided by a T1w at its own resolution

AT_ITS_OWN = Signal(guided=True)
T1W_GRID = GRID.scaled(np.full(3, 2.0))


def guided_network(head: float = 0.5) -> TrainableModel:
    torch.manual_seed(0)
    model = build_model("csr_dmri", SMALL | {"guided": True}, 3)
    torch.nn.init.normal_(model.decoder.stages[-1][-1].weight, std=head)
    torch.nn.init.normal_(model.filter.weight, std=head)
    return model.eval().requires_grad_(False)


def head_of(seed: int = 1) -> T1wImage:
    return T1wImage(np.random.default_rng(seed).uniform(1, 9, T1W_GRID.shape).astype(np.float32), T1W_GRID)


def test_stencils_are_the_neighbours_of_what_is_restored():
    random = np.random.default_rng(0)
    t1w, voxels = random.random((5, 6, 7)).astype(np.float32), random.random((5, 6, 7)) < 0.4
    guides = torch.cat(list(Stencils(t1w, voxels, CPU).chunks(16))).numpy()
    padded = np.pad(t1w, 1)
    expected = [padded[i : i + 3, j : j + 3, k : k + 3].ravel() for i, j, k in np.argwhere(voxels)]
    np.testing.assert_array_equal(guides[:, :-1], expected)
    np.testing.assert_array_equal(guides[:, -1], 1)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_t1w_of_zeros_restores_as_none(series, mask, normalization):
    target, model = GRID.resized((20, 21, 18)), guided_network()
    signal = Signal(normalization=normalization, guided=True)
    blank = T1wImage(np.zeros(T1W_GRID.shape, np.float32), T1W_GRID)
    none, zeros, guided, other = (
        restored(series, target, mask, model, signal, guide=image) for image in (None, blank, head_of(), head_of(2))
    )
    np.testing.assert_array_equal(zeros, none)
    assert not np.allclose(guided, none)
    assert not np.allclose(guided, other)
    assert np.isfinite(guided).all()


def test_guided_at_scale_one_the_scan_comes_back(series, mask):
    result = restored(series, GRID, mask, guided_network(), AT_ITS_OWN, guide=head_of())
    np.testing.assert_allclose(result, series, rtol=1e-4)


def test_a_model_that_is_not_guided_never_sees_the_t1w(series, mask):
    model, target = network(), GRID.resized((20, 21, 18))
    np.testing.assert_array_equal(
        restored(series, target, mask, model, guide=head_of()), restored(series, target, mask, model)
    )


def test_a_network_that_only_filters_gives_the_detail_of_the_t1w(mask):
    """Volumes of one intensity, and a T1w that is a ramp across each voxel's neighbours: what is added is known."""
    model = guided_network(head=0)
    model.filter.bias[14], model.filter.bias[12] = 1, -1
    ramp = np.indices(T1W_GRID.shape)[2].astype(np.float32)
    target = GRID.scaled(np.full(3, 2.0))
    series = np.full((*GRID.shape, 3), 100, np.float32)
    result = restored(series, target, mask, model, AT_ITS_OWN, guide=T1wImage(ramp, T1W_GRID))[..., 1]
    inner = restore_mask(mask, GRID, target)
    inner &= np.roll(inner, 1, 2) & np.roll(inner, -1, 2)
    # The brain is 8 target voxels high, so from one to the next the scaled T1w rises by a seventh.
    np.testing.assert_allclose(result[inner], 100 * (1 + 2 / 7), rtol=1e-3)


def test_the_parts_of_a_voxel_lie_where_its_halves_lie(series, mask):
    """A ramp of the T1w along an axis rises from one part to the next along it, by half of what voxels rise by.

    Axes are those of the world, along which a network sees the scan.
    """
    seen = []

    class Spy(CubicSpline):
        def encode(self, channels, lattice):
            seen.append(channels[0, -SUBPOSITIONS:].numpy())
            return super().encode(channels, lattice)

        def query(self, encoded, points, cell, guide):
            return super().query(encoded, points, cell)

    whole = np.ones(GRID.shape, bool)
    for axis in range(3):
        canonical = np.indices(T1W_GRID.canonical.shape)[axis].astype(np.float32)
        ramp = from_canonical(canonical, T1W_GRID.affine)
        restored(series, GRID.scaled(np.full(3, 1.5)), whole, Spy(), AT_ITS_OWN, guide=T1wImage(ramp, T1W_GRID))
        parts = seen[-1].reshape(2, 2, 2, *GRID.shape)
        inner = (slice(3, -3),) * 3
        step = np.diff(parts.mean((0, 1, 2)), axis=axis)[inner].mean()
        assert step == pytest.approx(1 / (GRID.shape[axis] - 0.5), rel=0.05)
        for other in range(3):
            expected = step / 2 if other == axis else 0
            np.testing.assert_allclose(np.diff(parts, axis=other).mean((0, 1, 2))[inner], expected, atol=1e-4)


def test_guided_a_crop_of_the_scan_restores_as_the_scan():
    grid = Grid((40, 24, 24), np.diag([2.0, 2, 2, 1]))
    series = np.random.default_rng(3).uniform(50, 150, (*grid.shape, 2)).astype(np.float32)
    mask = np.zeros(grid.shape, bool)
    mask[18:22, 10:14, 10:14] = True
    fine = grid.scaled(np.full(3, 2.0))
    t1w = T1wImage(np.random.default_rng(4).uniform(1, 9, fine.shape).astype(np.float32), fine)
    model, start, size = guided_network(), np.array([8, 0, 0]), (24, 24, 24)

    def brain(data, source, inside):
        target = source.scaled(np.full(3, 1.5))
        volumes = restore_volumes(
            data, BVALS[:2], source, target, inside, model, signal=AT_ITS_OWN, guide=t1w, b0_threshold=50, device=CPU
        )
        return list(volumes)[1][restore_mask(inside, source, target)]

    whole = brain(series, grid, mask)
    cropped = brain(series[8:32], grid.cropped(start, size), mask[8:32])
    np.testing.assert_allclose(cropped, whole, atol=1e-4 * np.ptp(whole))


def test_deviations_come_in_the_units_of_the_scan_where_it_is_restored(series, mask):
    torch.manual_seed(0)
    model = build_model("csr_dmri", SMALL | {"spread": True}, 3).eval().requires_grad_(False)
    torch.nn.init.constant_(model.spread.bias, np.log(0.1))
    target = GRID.__class__((28, 30, 24), GRID.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    options = {"signal": PLAIN, "b0_threshold": 50, "device": CPU}
    both = list(restore_volumes(series, BVALS, GRID, target, mask, model, deviations=True, **options))
    plain = list(restore_volumes(series, BVALS, GRID, target, mask, model, **options))
    inside = plan_restoration(mask, GRID, target, model.radius).voxels
    means = [series[..., :1].mean(-1), series[..., 1:].mean(-1)]
    for volume, shell, alone in zip(both, (0, 1, 1), plain, strict=True):
        np.testing.assert_array_equal(volume[0], alone)
        np.testing.assert_allclose(volume[1][inside], 0.1 * np.median(means[shell][mask]), rtol=1e-5)
        assert not volume[1][~inside].any()


def test_fewer_points_are_asked_for_at_once_where_a_gpu_has_no_room_for_many(series, mask, monkeypatch):
    model, target = network(), GRID.at_resolution(np.full(3, 1.2))
    expected, query = restored(series, target, mask, model), model.query

    def query_of_a_small_gpu(encoded, points, *rest):
        if len(points) > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return query(encoded, points, *rest)

    monkeypatch.setattr(model, "query", query_of_a_small_gpu)
    monkeypatch.setattr(upsampler, "queries_at_once", lambda device: 1000)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        restored(series, target, mask, model)
    monkeypatch.setattr(upsampler, "CHUNK", 50)
    np.testing.assert_allclose(restored(series, target, mask, model), expected, atol=1e-4)


def test_what_is_made_ahead_comes_in_order_and_fails_where_it_failed():
    def items():
        yield from range(3)
        raise ValueError("the fourth")

    found = []
    with pytest.raises(ValueError, match="the fourth"):
        for item in ahead(items()):
            found.append(item)
    assert found == [0, 1, 2]


def test_the_next_is_made_while_one_is_used():
    made = []

    def items():
        for item in range(3):
            made.append(item)
            yield item

    for item in ahead(items()):
        for _ in range(200):
            if len(made) > min(item + 1, 2):
                break
            time.sleep(0.01)
        assert len(made) == min(item + 2, 3)
