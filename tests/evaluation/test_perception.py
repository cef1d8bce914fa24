"""Figures by the features of slices are of the brain alone, and grow with what is done to it."""

import numpy as np
import pytest
import torch

from bids_sr.evaluation.perception import SLICES, _slices, _spread, compare_perception
from bids_sr.models.vgg import load_vgg
from tests.evaluation.made import reference
from tests.made_models import save_narrow_vgg


@pytest.fixture
def network(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    return load_vgg(save_narrow_vgg(monkeypatch, tmp_path))


def test_what_was_acquired_is_at_no_distance_and_what_is_blurred_is(network):
    acquired = reference()
    random = np.random.default_rng(0)
    small, large = (acquired.data * (1 + share * random.standard_normal(acquired.data.shape)) for share in (0.02, 0.2))
    figures = [compare_perception(acquired, data.astype(np.float32), network) for data in (acquired.data, small, large)]
    assert figures[0].vgg == 0
    assert figures[0].fid == pytest.approx(0, abs=1e-8)
    assert 0 < figures[1].vgg < figures[2].vgg
    assert 0 < figures[1].fid < figures[2].fid


def test_only_weighted_volumes_and_the_brain_are_seen(network):
    acquired = reference()
    other = np.where(acquired.mask[..., None] & acquired.weighted, acquired.data, -7)
    assert compare_perception(acquired, other, network).vgg == 0


def test_slices_are_spread_over_the_box_of_the_brain():
    volume = np.indices((30, 20, 5))[0].astype(np.float32)
    mask = np.zeros(volume.shape, bool)
    mask[4:28, 3:9, 1:4] = True
    across_x, across_y, across_z = _slices(volume, mask)
    assert across_x.shape == (SLICES, 1, 6, 3)
    assert across_y.shape == (6, 1, 24, 3)
    assert across_z.shape == (3, 1, 24, 6)
    assert across_x[:, 0, 0, 0].tolist() == [5, 8, 11, 14, 17, 20, 23, 26]
    assert _spread(5).tolist() == [0, 1, 2, 3, 4]
