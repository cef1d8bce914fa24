"""The network has the paper's size, never starts dead, and does not depend on how it is asked."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from bids_sr.models.base import GUIDE_CHANNELS, NEIGHBOURS, SUBPOSITIONS, Lattice
from bids_sr.models.csr_dmri import CsrDmri, guided_weights
from bids_sr.models.implicit import coordinate_channels, lookup, trilinear_corners
from bids_sr.models.rdn import ResidualDenseBlock
from bids_sr.models.registry import load_model

SMALL = {
    "channels": 3, "features": 8, "growth": 8, "blocks": 2, "layers": 2, "feature_channels": 8, "hidden": 16,
    "stages": 1, "coordinates": "cell", "residual": True,
}  # fmt: skip

NARROW = {"features": 8, "growth": 8, "blocks": 2, "layers": 2, "feature_channels": 8, "hidden": 16}
#: This model gives the same values whatever the lattice.
ANY = Lattice((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def awake(model: CsrDmri, seed: int = 0) -> CsrDmri:
    """The model with a head that is not zero any more, as after training."""
    torch.manual_seed(seed)
    nn.init.normal_(model.decoder.stages[-1][-1].weight, std=0.5)
    return model.eval()


def test_the_paper_size():
    model = CsrDmri()
    assert count(model.encoder) == 5_920_512
    assert count(model.decoder) == 364_676
    assert count(CsrDmri(channels=1)) == 6_283_460


def assert_starts_alive(model: CsrDmri, n_channels: int):
    """The output varies, and there is something to learn from, before anything was learned."""
    values = model(torch.rand(1, n_channels, 5, 5, 5), torch.rand(1, 64, 3) * 4, torch.full((1, 3), 0.5))
    assert values.std() > 1e-6
    (values - 5).square().mean().backward()
    assert sum(p.grad.abs().sum() for p in model.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize(("size", "seeds"), [(NARROW, range(40)), ({}, range(3))], ids=["narrow", "full size"])
def test_no_seed_of_the_published_network_starts_dead(n_channels, size, seeds):
    for seed in seeds:
        torch.manual_seed(seed)
        assert_starts_alive(CsrDmri(n_channels, **size, coordinates="grid", residual=False), n_channels)


def test_no_seed_of_the_residual_network_starts_dead():
    for seed in range(20):
        torch.manual_seed(seed)
        assert_starts_alive(CsrDmri(2, **NARROW, stages=1, coordinates="cell", residual=True), 2)


@pytest.mark.parametrize("options", [{}, {"coordinates": "cell", "residual": True}], ids=["literal", "residual"])
def test_a_batch_of_patches_is_as_each_alone(options, monkeypatch):
    monkeypatch.setattr("bids_sr.models.csr_dmri.CHUNK", 64)
    model = awake(CsrDmri(2, **NARROW, **options))
    channels, points, cell = torch.rand(3, 2, 4, 5, 6), torch.rand(3, 50, 3) * 5, torch.rand(3, 3) * 0.7 + 0.25
    together = model(channels, points, cell)
    assert together.shape == (3, 50)
    for n in range(3):
        alone = model.query(model.encode(channels[n : n + 1], ANY), points[n], cell[n])[0]
        torch.testing.assert_close(together[n], alone, atol=1e-6, rtol=1e-5)


def test_the_light_model_gives_what_it_gave_when_it_was_trained():
    model, _ = load_model("light", torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    channels = torch.rand(1, 3, 8, 8, 8, generator=generator)
    points = torch.rand(200, 3, generator=generator) * 7
    values = model.query(model.encode(channels, ANY), points, torch.full((3,), 0.5))
    assert values.mean().item() == pytest.approx(0.504764, abs=1e-5)
    assert values.std().item() == pytest.approx(0.134057, abs=1e-5)


@torch.inference_mode()
def test_in_mixed_precision_the_interpolated_input_stays_exact():
    model, channels, points = CsrDmri(**SMALL), torch.rand(1, 3, 5, 5, 5), torch.rand(1, 90, 3) * 4
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(channels, points, torch.full((1, 3), 0.5))
    torch.testing.assert_close(mixed, model(channels, points, torch.full((1, 3), 0.5)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("precise", [True, False], ids=["float32", "mixed"])
def test_a_dense_block_is_the_one_that_concatenates_its_maps(precise):
    torch.manual_seed(0)
    block, maps = ResidualDenseBlock(6, 4, 3), torch.randn(2, 6, 5, 6, 7)
    with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        dense = maps
        for layer in block.layers:
            dense = torch.cat([dense, torch.relu(layer(dense))], dim=1)
        expected, tolerance = maps + block.fusion(dense), 1e-5 if precise else 0.03
        torch.testing.assert_close(block(maps), expected, atol=tolerance, rtol=tolerance)


def test_trilinear_lookup_is_scipys_order_one():
    volume = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    points = np.random.default_rng(1).uniform(-1, 6, (500, 3)).astype(np.float32)
    expected = ndimage.map_coordinates(volume, points.T, order=1, mode="nearest")
    corners = trilinear_corners(torch.from_numpy(points), (4, 5, 6))
    found = lookup(torch.from_numpy(volume.reshape(-1, 1)), *corners)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_lookup_on_axes_of_one_voxel():
    corners = trilinear_corners(torch.tensor([[0.3, -2.0, 7.0]]), (1, 1, 1))
    assert lookup(torch.tensor([[4.0]]), *corners).item() == pytest.approx(4)


def test_an_untrained_residual_network_is_trilinear_interpolation():
    model = CsrDmri(**SMALL)
    channels, points = torch.rand(2, 3, 4, 5, 6), torch.rand(50, 3) * 3
    values = model.query(model.encode(channels, ANY), points, torch.full((3,), 0.5))
    expected = ndimage.map_coordinates(channels[1, 0].numpy(), points.numpy().T, order=1)
    np.testing.assert_allclose(values[1].detach(), expected, atol=1e-5)


def test_scale_one_is_the_identity():
    model = awake(CsrDmri(**SMALL))
    channels = torch.rand(1, 3, 4, 4, 4)
    voxels = torch.from_numpy(np.indices((4, 4, 4)).reshape(3, -1).T.astype(np.float32))
    values = model.query(model.encode(channels, ANY), voxels, torch.ones(3))
    np.testing.assert_allclose(values.detach()[0], channels[0, 0].flatten(), atol=1e-6)


@pytest.mark.parametrize("cell", [[1.0, 1, 0.5], [0.5, 0.5, 1], [0.7, 1, 1]])
def test_one_magnified_axis_is_enough_to_be_restored(cell):
    model = awake(CsrDmri(**SMALL))
    encoded, points = model.encode(torch.rand(1, 3, 4, 4, 4), ANY), torch.rand(50, 3) * 3
    restored = model.query(encoded, points, torch.tensor(cell))
    assert (restored - model.query(encoded, points, torch.ones(3))).abs().min() > 0


@torch.inference_mode()
def test_chunks_give_what_the_whole_gives():
    model = awake(CsrDmri(**SMALL))
    encoded, points, cell = model.encode(torch.rand(1, 3, 6, 6, 6), ANY), torch.rand(500, 3) * 5, torch.full((3,), 0.4)
    whole = model.query(encoded, points, cell)
    parts = torch.cat([model.query(encoded, part, cell) for part in points.split(64)], dim=1)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@torch.inference_mode()
def test_a_crop_with_the_receptive_field_around_it_gives_what_the_whole_gives():
    model = awake(CsrDmri(**SMALL))
    channels, cell = torch.rand(1, 3, 30, 8, 8), torch.full((3,), 0.5)
    points = torch.rand(40, 3) * torch.tensor([3.0, 7, 7]) + torch.tensor([14.0, 0, 0])
    start = 14 - model.radius
    part = channels[:, :, start : 18 + model.radius]
    shifted = model.query(model.encode(part, ANY), points - torch.tensor([float(start), 0, 0]), cell)
    np.testing.assert_allclose(shifted, model.query(model.encode(channels, ANY), points, cell), atol=1e-5)


def test_cell_coordinates_do_not_see_whole_voxels():
    points, cell = torch.rand(20, 3), torch.tensor([0.5, 0.25, 1.0])
    here = coordinate_channels(points, cell, (9, 9, 9), "cell")
    there = coordinate_channels(points + torch.tensor([3.0, 1, 2]), cell, (9, 9, 9), "cell")
    np.testing.assert_allclose(here, there, atol=1e-5)
    np.testing.assert_allclose(here[0, 3:], [1, 2, 0])
    assert here[:, :3].abs().max() <= 1


def test_grid_coordinates_span_the_box():
    corners = coordinate_channels(torch.tensor([[-0.5, -0.5, -0.5], [3.5, 4.5, 5.5]]), torch.ones(3), (4, 5, 6), "grid")
    np.testing.assert_allclose(corners, [[-1, -1, -1], [1, 1, 1]])


# Guided by a T1w


def guided_model(seed: int = 0) -> CsrDmri:
    """As after training: neither head nor filter is zero."""
    model = awake(CsrDmri(**SMALL, guided=True), seed)
    nn.init.normal_(model.filter.weight, std=0.5)
    return model.requires_grad_(False)


def shown(shape=(6, 6, 6), n_points: int = 200, n: int = 1):
    """Channels with a T1w, points and their guide."""
    channels = torch.rand(n, 3 + SUBPOSITIONS, *shape)
    points, guide = torch.rand(n, n_points, 3) * 5, torch.rand(n, n_points, GUIDE_CHANNELS)
    guide[..., -1] = 1
    return channels, points, guide


def without(channels):
    return torch.cat([channels[:, :3], torch.zeros_like(channels[:, 3:])], dim=1)


def test_a_t1w_of_zeros_is_none():
    model, (channels, points, guide) = guided_model(), shown()
    encoded, cell = model.encode(without(channels), ANY), torch.full((3,), 0.5)
    none = model.query(encoded, points[0], cell)
    assert torch.equal(model.query(encoded, points[0], cell, torch.zeros_like(guide[0])), none)
    assert torch.equal(model(without(channels), points, cell[None]), none)
    assert not torch.allclose(model.query(encoded, points[0], cell, guide[0]), none)
    assert not torch.allclose(model.query(model.encode(channels, ANY), points[0], cell), none)


def test_a_guided_batch_is_as_each_patch_alone_and_as_its_chunks(monkeypatch):
    monkeypatch.setattr("bids_sr.models.csr_dmri.CHUNK", 64)
    model, (channels, points, guide) = guided_model(), shown(n=3)
    guide[1] = 0
    cell = torch.rand(3, 3) * 0.7 + 0.25
    together = model(channels, points, cell, guide)
    for n in range(3):
        encoded = model.encode(channels[n : n + 1], ANY)
        chunks = zip(points[n].split(70), guide[n].split(70), strict=True)
        alone = torch.cat([model.query(encoded, where, cell[n], told)[0] for where, told in chunks])
        torch.testing.assert_close(together[n], alone, atol=1e-5, rtol=1e-5)


def test_guided_at_scale_one_it_is_the_identity():
    model, (channels, _, guide) = guided_model(), shown((4, 4, 4), 64)
    voxels = torch.from_numpy(np.indices((4, 4, 4)).reshape(3, -1).T.astype(np.float32))
    values = model.query(model.encode(channels, ANY), voxels, torch.ones(3), guide[0])
    np.testing.assert_allclose(values[0], channels[0, 0].flatten(), atol=1e-6)


def test_the_filter_adds_what_the_t1w_shows_beyond_the_encoded_resolution():
    """A filter that takes one neighbour as it is, in a network that corrects nothing else."""
    model, (channels, points, guide) = CsrDmri(**SMALL, guided=True).eval().requires_grad_(False), shown()
    encoded, cell = model.encode(channels, ANY), torch.full((3,), 0.5)
    untrained = model.query(encoded, points[0], cell, guide[0])[0]
    lowered = torch.stack([channels[0, 0], channels[0, 3:].mean(0)])
    volume, t1w = (ndimage.map_coordinates(image.numpy(), points[0].numpy().T, order=1) for image in lowered)
    np.testing.assert_allclose(untrained, volume, atol=1e-5)
    for neighbour in (0, 13, NEIGHBOURS - 1):
        model.filter.bias[:] = torch.eye(NEIGHBOURS)[neighbour]
        filtered = model.query(encoded, points[0], cell, guide[0])[0]
        np.testing.assert_allclose(filtered, volume + guide[0, :, neighbour].numpy() - t1w, atol=1e-5)
        np.testing.assert_allclose(model.query(encoded, points[0], cell)[0], volume, atol=1e-5)


def test_with_the_weights_of_a_plain_network_it_gives_what_that_gives():
    plain, model = awake(CsrDmri(**SMALL), seed=1).requires_grad_(False), guided_model()
    model.load_state_dict(guided_weights(plain.state_dict(), model))
    channels, points, guide = shown()
    expected = plain(channels[:, :3], points, torch.full((1, 3), 0.5))
    torch.testing.assert_close(model(channels, points, torch.full((1, 3), 0.5), guide), expected, atol=1e-5, rtol=1e-5)


def test_the_weights_of_a_network_of_another_size_do_not_fit():
    model = guided_model()
    with pytest.raises(RuntimeError, match=r"[Ss]ize"):
        model.load_state_dict(guided_weights(CsrDmri(**SMALL | {"features": 4}).state_dict(), model))


@torch.inference_mode()
def test_guided_a_crop_with_the_receptive_field_around_it_gives_what_the_whole_gives():
    model, (channels, _, guide) = guided_model(), shown((30, 8, 8), 40)
    points, cell = torch.rand(40, 3) * torch.tensor([3.0, 7, 7]) + torch.tensor([14.0, 0, 0]), torch.full((3,), 0.5)
    start = 14 - model.radius
    part = channels[:, :, start : 18 + model.radius]
    shifted = model.query(model.encode(part, ANY), points - torch.tensor([float(start), 0, 0]), cell, guide[0])
    np.testing.assert_allclose(shifted, model.query(model.encode(channels, ANY), points, cell, guide[0]), atol=1e-5)


def test_only_a_residual_network_can_be_guided():
    with pytest.raises(ValueError, match="residual"):
        CsrDmri(guided=True)


@pytest.mark.parametrize("guided", [False, True])
def test_with_the_layer_that_tells_its_uncertainty_it_restores_the_same(guided):
    model = awake(CsrDmri(**SMALL, guided=guided, spread=True))
    nn.init.normal_(model.spread.weight, std=0.3)
    encoded = model.encode(torch.rand(2, 3 + SUBPOSITIONS * guided, 5, 5, 5), ANY)
    points, cell = torch.rand(40, 3) * 4, torch.tensor([0.5, 0.5, 1.0])
    guide = torch.rand(40, GUIDE_CHANNELS) if guided else None
    intensities, deviations = model.query_with_deviations(encoded, points, cell, guide)
    assert torch.equal(intensities, model.query(encoded, points, cell, guide))
    assert deviations.shape == (2, 40) and deviations.min() > 0 and deviations.std() > 0


def test_an_acquisition_with_the_same_voxels_would_have_noise_of_its_own():
    model = awake(CsrDmri(**SMALL, spread=True))
    volume, points = torch.rand(1, 3, 5, 5, 5), torch.cartesian_prod(*[torch.arange(5.0)] * 3)
    intensities, deviations = model.query_with_deviations(model.encode(volume, ANY), points, torch.ones(3))
    assert torch.allclose(intensities[0], volume[0, 0].flatten())
    assert deviations.min() > 0


def test_a_network_without_the_layer_says_so():
    model = CsrDmri(**SMALL)
    with pytest.raises(ValueError, match="uncertainty"):
        model.query_with_deviations(model.encode(torch.rand(1, 3, 5, 5, 5), ANY), torch.rand(4, 3), torch.ones(3) / 2)
