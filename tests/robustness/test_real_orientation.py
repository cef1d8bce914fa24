"""In real scans the corpus callosum runs from left to right and the corticospinal tract from feet to head."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_sr.bids.inputs import find_series
from bids_sr.config import Config
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import read_gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.dwi.tensor import fit_tensor, world_rotation
from bids_sr.geometry import Grid, target_grid
from bids_sr.models.interpolation import cubic_on_grid

ROOT = Path(__file__).parents[2]
DATASET = Path(os.environ.get("BIDS_SR_TEST_DATA", ROOT / ".." / "shared" / "data" / "open-dmri"))

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.slow,
    pytest.mark.skipif(not (DATASET / "sub-sag").is_dir(), reason="no real scans: set BIDS_SR_TEST_DATA"),
]


def world_v1(data, gradients, mask, affine):
    """V1 along left-right, back-front, feet-head, of the voxels of a mask, (n, 3); and their FA."""
    maps = fit_tensor(data, gradients, 50.0, mask)
    return (maps.v1[mask] @ world_rotation(affine).T), maps.fa[mask]


@pytest.mark.parametrize("label", ["sag", "uih"])
def test_large_tracts_keep_their_directions(label, tmp_path):
    """As acquired and on a finer grid; voxels of high FA, by their place in the brain's bounding box."""
    series = find_series(Config(DATASET, tmp_path, tmp_path, participants=(label,)))[0]
    image, gradients = nib.load(series.dwi), read_gradients(series.bval, series.bvec)
    grid = Grid.of(image)
    brain = brain_mask(mean_b0(image.dataobj, gradients.bvals, 50.0), grid.voxel_sizes)
    places = np.argwhere(brain) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    middle = np.median(places, axis=0)
    # The mask of a scan may reach down into the neck; the ventricles lie about 60 mm below the top of the brain.
    middle[2] = np.percentile(places[:, 2], 99.5) - 60
    # A slab about the middle of the head: between the hemispheres, and where the tract rises beside it.
    near = np.zeros(grid.shape, bool)
    near[tuple(np.argwhere(brain)[np.all(np.abs(places - middle) < [32, 32, 40], axis=1)].T)] = True
    fine = target_grid(grid, None, (1.3, 1.3, 1.3), "scan")
    chosen = np.arange(min(40, len(gradients)))
    data = np.stack([np.asarray(image.dataobj[..., int(v)], np.float32) for v in chosen], axis=-1)
    finer = np.stack([cubic_on_grid(data[..., v], grid, fine) for v in range(data.shape[-1])], axis=-1)
    near_fine = cubic_on_grid(near.astype(np.float32), grid, fine) > 0.5
    for values, mask, where in ((data, near, grid), (finer, near_fine, fine)):
        v1, fa = world_v1(values, gradients.subset(chosen), mask, where.affine)
        place = np.argwhere(mask) @ where.affine[:3, :3].T + where.affine[:3, 3] - middle
        callosum = (fa > 0.65) & (np.abs(place[:, 0]) < 4)
        tract = (fa > 0.55) & (np.abs(np.abs(place[:, 0]) - 22) < 6) & (np.abs(place[:, 1]) < 15)
        for voxels, axis in ((callosum, 0), (tract, 2)):
            assert voxels.sum() > 20
            shares = np.bincount(np.argmax(np.abs(v1[voxels]), axis=1), minlength=3) / voxels.sum()
            # The commonest axis, not most voxels: sub-sag has 20 directions and crossing fibres in the box.
            assert shares.argmax() == axis
