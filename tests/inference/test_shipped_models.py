"""What every model that ships must hold to: crops restore as the whole, scale 1 is the identity, and no lattice."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import ndimage

from bids_sr.degradation import degrade
from bids_sr.dwi.normalization import input_channels, make_normalization, shell_context
from bids_sr.dwi.t1w import T1wImage, t1w_channel, t1w_guide
from bids_sr.dwi.tensor import fit_tensor
from bids_sr.geometry import Grid
from bids_sr.inference.upsampler import (
    Stencils,
    halo,
    plan_restoration,
    restore_mask,
    restore_points,
    restore_volumes,
)
from bids_sr.models.base import Signal
from bids_sr.models.interpolation import Trilinear
from bids_sr.models.registry import list_models, load_model, read_card
from tests.dwi.made_series import one_shell

CPU = torch.device("cpu")
GRADIENTS = one_shell(6)
B0_THRESHOLD = 50.0
#: Fine voxels per acquired voxel along each axis, and acquired voxels along each axis.
SCALE, SIZE = 3, 16
#: Acquired voxels at the border that do not count: their surroundings are unknown.
BORDER = 2
#: Acquired voxels over which the made brain changes; much less would be a lattice itself.
WIDTH = 2.0
#: How much stronger than between the harmonics of the acquired voxels' period FA may be at them. Here light has 1.8
#: and cubic 0.9, but trilinear 16 and nearest neighbour 12 (`test_a_lattice_is_seen`).
STRONGEST = 4.0


@dataclass(frozen=True)
class Scan:
    """A made scan, the grid that it is asked for on, and a T1w of the same brain, a little turned."""

    data: np.ndarray
    grid: Grid
    target: Grid
    t1w: T1wImage


def smooth(random, shape):
    """A smooth random field of unit variance."""
    field = ndimage.gaussian_filter(random.standard_normal(shape), WIDTH * SCALE, mode="wrap")
    return field / field.std()


@pytest.fixture(scope="module")
def scan():
    """A cube of smoothly varying tensors, seen by voxels `SCALE` times as wide, with hardly any noise."""
    random, shape = np.random.default_rng(0), (SIZE * SCALE,) * 3
    axes = np.stack([smooth(random, shape) for _ in range(3)], axis=-1)
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    md, s0 = 0.8e-3 * np.exp(0.2 * smooth(random, shape)), 600 * np.exp(0.25 * smooth(random, shape))
    axial = md * (1 + 1.2 / (1 + np.exp(-1.2 * smooth(random, shape))))
    radial = (3 * md - axial) / 2
    weighted = zip(GRADIENTS.bvals, GRADIENTS.bvecs, strict=True)
    signals = [s0 * np.exp(-b * (radial + (axial - radial) * (axes @ v) ** 2)) for b, v in weighted]
    fine = Grid(shape, np.diag([1.0, 1.0, 1.0, 1.0]))
    data, grid = degrade(np.stack(signals, axis=-1).astype(np.float32), fine, np.full(3, float(SCALE)))
    data += random.normal(0, 0.6, data.shape).astype(np.float32)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.05), -np.sin(0.05)], [np.sin(0.05), np.cos(0.05)]]
    # White matter, where water moves along fibres, is bright in a T1w.
    t1w = T1wImage((1000 - s0 + 0.3e6 * (axial - radial)).astype(np.float32), Grid(shape, turn))
    return Scan(data, grid, fine, t1w)


#: Each network that ships, and once more with the T1w if it uses one.
CASES = [
    pytest.param(name, with_t1w, id=f"{name} with T1w" if with_t1w else name)
    for name in list_models()
    if read_card(name).weights_sha256
    for with_t1w in ((False, True) if read_card(name).uses_t1w else (False,))
]


def restored(scan, model, signal, target, *, with_t1w=False, volumes=slice(None)):
    """Volumes on the target grid, (n, x, y, z), the whole field of view being brain."""
    mask = np.ones(scan.grid.shape, bool)
    t1w = t1w_channel(scan.t1w.voxels, scan.t1w.grid, scan.grid, mask) if with_t1w else None
    return np.stack(list(restore_volumes(
        scan.data[..., volumes], GRADIENTS.bvals[volumes], scan.grid, target, mask, model, signal=signal,
        b0_threshold=B0_THRESHOLD, device=CPU, t1w=t1w, guide=scan.t1w if with_t1w else None,
    )))  # fmt: skip


@pytest.mark.parametrize(("name", "with_t1w"), CASES)
def test_scale_one_is_the_identity(scan, name, with_t1w):
    model, card = load_model(name, CPU)
    found = restored(scan, model, card.signal, scan.grid, with_t1w=with_t1w, volumes=slice(0, 2))
    for volume, acquired in zip(found, np.moveaxis(scan.data, -1, 0), strict=False):
        np.testing.assert_allclose(volume, acquired, atol=1e-5 * np.ptp(acquired))


@pytest.mark.parametrize(("name", "with_t1w"), CASES)
def test_a_crop_restores_as_the_whole_does(scan, name, with_t1w):
    """The box that is encoded around a brain gives, in the brain, what the whole field of view gives."""
    model, card = load_model(name, CPU)
    whole = np.ones(scan.grid.shape, bool)
    brain = np.zeros(scan.grid.shape, bool)
    # In a corner, so that much is cut off on the other sides.
    brain[1:5, 1:5, 1:5] = True
    target = scan.grid.scaled(np.full(3, 2.0))
    plan = plan_restoration(brain, scan.grid, target, model.radius)
    box = (slice(0, 14),) * 3
    assert plan.box == box, "two voxels are cut off"
    channels, stencils = shown(scan, card.signal, whole, target, plan.voxels, with_t1w)
    cropped, full = (
        restore_points(model, channels[(slice(None), *part)], plan, CPU, stencils) for part in (box, (slice(None),) * 3)
    )
    inside = restore_mask(brain, scan.grid, target)[plan.voxels]
    np.testing.assert_allclose(cropped[inside], full[inside], atol=1e-4 * np.ptp(full[inside]))
    sees_further = model.radius > halo(model.radius)
    assert np.any(cropped != full) == sees_further, "the rest takes part, if the model sees that far"


def shown(scan, signal: Signal, mask, target, voxels, with_t1w):
    """Channels of a weighted volume of the whole scan, and the T1w's stencils, as the application makes them."""
    context = shell_context(scan.data, GRADIENTS.bvals, mask, B0_THRESHOLD)
    normalization = make_normalization(signal.normalization, context.levels, context.means[0], mask)
    channel = t1w_channel(scan.t1w.voxels, scan.t1w.grid, scan.grid, mask) if with_t1w else None
    channels = input_channels(signal.inputs, normalization, context.sources(scan.data[..., 1], 1, mask, channel))
    if not signal.guided:
        return channels, None
    guide = t1w_guide(scan.t1w, scan.grid, mask, target, np.ones(target.shape, bool))
    parts = guide.parts if with_t1w else np.zeros_like(guide.parts)
    return np.concatenate([channels, parts]), Stencils(guide.target, voxels, CPU) if with_t1w else None


def fa_of(volumes):
    """FA of volumes, (n, x, y, z)."""
    series = np.moveaxis(volumes, 0, -1)
    return fit_tensor(series, GRADIENTS, B0_THRESHOLD, np.ones(series.shape[:3], bool)).fa


def lattice(fa):
    """How much stronger a map is at the acquired voxels' frequency than between its harmonics, along the worst axis.

    Strongest within a quarter of the frequency around it (a blocky map has the images of its coarse part there, not at
    it), over the mean from there to half a frequency away.
    """
    inner = fa[(slice(BORDER * SCALE, -BORDER * SCALE),) * 3]
    n = len(inner)
    step = n // SCALE
    distance = np.abs(np.arange(n // 2 + 1) - step)
    found = []
    for axis in range(3):
        lines = np.moveaxis(inner, axis, -1)
        power = np.abs(np.fft.rfft((lines - lines.mean(-1, keepdims=True)) * np.hanning(n + 2)[1:-1])) ** 2
        power = power.mean(axis=(0, 1))
        found.append(
            power[distance <= step // 4].max() / power[(distance > step // 4) & (distance <= step // 2)].mean()
        )
    return max(found)


@pytest.mark.parametrize(("name", "with_t1w"), [*CASES, pytest.param("cubic", False, id="cubic")])
def test_fa_shows_no_lattice_of_the_acquired_voxels(scan, name, with_t1w):
    model, card = load_model(name, CPU)
    assert lattice(fa_of(restored(scan, model, card.signal, scan.target, with_t1w=with_t1w))) < STRONGEST


def test_a_lattice_is_seen(scan):
    """Blocks, and the ramps of trilinear interpolation, whose noise and blur come and go with the acquired voxels."""
    blocks = np.moveaxis(scan.data, -1, 0).repeat(SCALE, 1).repeat(SCALE, 2).repeat(SCALE, 3)
    assert lattice(fa_of(blocks)) > 2 * STRONGEST
    ramps = restored(scan, Trilinear(), Signal(("volume",)), scan.target)
    assert lattice(fa_of(ramps)) > 2 * STRONGEST
