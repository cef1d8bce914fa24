"""The network has the paper's size, never starts dead, and does not depend on how it is asked."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.implicit import coordinate_channels, lookup, trilinear_corners

SMALL = {
    "channels": 3, "features": 8, "growth": 8, "blocks": 2, "layers": 2, "feature_channels": 8, "hidden": 16,
    "stages": 1, "coordinates": "cell", "residual": True,
}  # fmt: skip


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


@pytest.mark.parametrize("options", [{}, {"stages": 1, "coordinates": "cell", "residual": True}])
def test_no_seed_starts_dead(options):
    size = {"features": 8, "growth": 8, "blocks": 2, "layers": 2, "feature_channels": 8, "hidden": 16}
    for seed in range(20):
        torch.manual_seed(seed)
        model = CsrDmri(2, **size, **options)
        encoded = model.encode(torch.rand(1, 2, 5, 5, 5))
        points = torch.rand(64, 3) * 4
        (model.query(encoded, points, torch.full((3,), 0.5)) - 5).square().mean().backward()
        assert sum(p.grad.abs().sum() for p in model.parameters() if p.grad is not None) > 0


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
    values = model.query(model.encode(channels), points, torch.full((3,), 0.5))
    expected = ndimage.map_coordinates(channels[1, 0].numpy(), points.numpy().T, order=1)
    np.testing.assert_allclose(values[1].detach(), expected, atol=1e-5)


def test_scale_one_is_the_identity():
    model = awake(CsrDmri(**SMALL))
    channels = torch.rand(1, 3, 4, 4, 4)
    voxels = torch.from_numpy(np.indices((4, 4, 4)).reshape(3, -1).T.astype(np.float32))
    values = model.query(model.encode(channels), voxels, torch.ones(3))
    np.testing.assert_allclose(values.detach()[0], channels[0, 0].flatten(), atol=1e-6)


@pytest.mark.parametrize("cell", [[1.0, 1, 0.5], [0.5, 0.5, 1], [0.7, 1, 1]])
def test_one_magnified_axis_is_enough_to_be_restored(cell):
    model = awake(CsrDmri(**SMALL))
    encoded, points = model.encode(torch.rand(1, 3, 4, 4, 4)), torch.rand(50, 3) * 3
    restored = model.query(encoded, points, torch.tensor(cell))
    assert (restored - model.query(encoded, points, torch.ones(3))).abs().min() > 0


@torch.inference_mode()
def test_chunks_give_what_the_whole_gives():
    model = awake(CsrDmri(**SMALL))
    encoded, points, cell = model.encode(torch.rand(1, 3, 6, 6, 6)), torch.rand(500, 3) * 5, torch.full((3,), 0.4)
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
    shifted = model.query(model.encode(part), points - torch.tensor([float(start), 0, 0]), cell)
    np.testing.assert_allclose(shifted, model.query(model.encode(channels), points, cell), atol=1e-5)


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
