"""Heads that do not exist have the tissues, the water and the fibres of heads."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_sr.demo.brain import BENDING_MM
from bids_sr.demo.dataset import centred_grid
from bids_sr.demo.texture import SmoothNoise
from bids_sr.errors import MissingExtraError
from bids_sr.geometry import Grid
from bids_sr.training import anatomy
from bids_sr.training.anatomy import (
    Bent,
    Tissues,
    all_fibres,
    average_head,
    compartments_of,
    draw_contrast,
    draw_individual,
    onto,
    random_head,
    tissues_of,
    uneven_brightness,
)

# Coarse, for speed; anatomy shows at 4 mm already.
WHOLE = centred_grid((45, 54, 46), (4.0, 4.0, 4.0), (0.0, -17.0, 8.0))
seeds = st.integers(0, 10_000)


@pytest.fixture(scope="module")
def average():
    pytest.importorskip("nilearn", reason="the ICBM152 maps come with nilearn")
    return average_head()


@pytest.fixture(scope="module")
def individual(average):
    return draw_individual(average[0].grid, np.random.default_rng(3))


def test_without_nilearn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    average_head.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'bids_sr\[demo\]'"):
        random_head(WHOLE, np.random.default_rng(0))


def test_bending_is_the_change_of_pose_and_the_noises_in_millimetres():
    grid = centred_grid((12, 14, 10), (3.0, -4.0, 5.0), (1.0, 2.0, 3.0))
    noise = SmoothNoise.draw(grid, 8.0, np.random.default_rng(0))
    linear, centre = np.array([0.05, -0.02, 0.01]), np.array([5.0, -5, 0])
    voxels = np.moveaxis(np.indices(grid.shape), 0, -1)
    world = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    expected = (world - centre) @ linear + 2.5 * noise.on(grid)
    bent = Bent((noise, noise), (2.0, 0.5), linear, centre)
    np.testing.assert_allclose(bent.on(grid) * BENDING_MM, expected, atol=1e-4)


def test_ramps_survive_the_way_between_grids():
    source = centred_grid((20, 22, 24), (2.0, 2.5, -3.0), (0.0, 0.0, 0.0))
    target = centred_grid((11, 12, 10), (1.3, -1.1, 0.9), (2.0, -3.0, 1.0))

    def ramp(grid: Grid) -> np.ndarray:
        voxels = np.moveaxis(np.indices(grid.shape), 0, -1)
        return ((voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]) @ [1.0, -2.0, 0.5]).astype(np.float32)

    np.testing.assert_allclose(onto(ramp(source), source, target), ramp(target), atol=1e-4)


@settings(deadline=None)
@given(seeds)
def test_the_water_of_a_tissue_is_that_of_living_brain(seed):
    contrast = draw_contrast(np.random.default_rng(seed))
    for name, pools in contrast.pools.items():
        assert sum(pool.share for pool in pools) == pytest.approx(1)
        assert all(0 < pool.radial <= pool.axial < 3.3e-3 for pool in pools), name
    mean = {
        name: sum(pool.share * (pool.axial + 2 * pool.radial) / 3 for pool in pools)
        for name, pools in contrast.pools.items()
    }
    assert 0.6e-3 < mean["wm"] < 1.15e-3
    assert 0.7e-3 < mean["gm"] < 1.0e-3
    assert mean["csf"] > 2.6e-3
    axial, radial = (sum(p.share * getattr(p, kind) for p in contrast.pools["wm"]) for kind in ("axial", "radial"))
    assert 0.5 < (axial - radial) / np.hypot(axial, np.sqrt(2) * radial) < 0.9
    assert contrast.b0["csf"] > contrast.b0["gm"]
    assert contrast.t1w["csf"] < contrast.t1w["gm"] < contrast.t1w["wm"]


@given(seeds)
def test_signals_of_tissue_fall_more_slowly_than_those_of_free_water(seed):
    for name in ("wm", "gm"):
        pools = draw_contrast(np.random.default_rng(seed)).pools[name]
        mean = sum(pool.share * pool.radial for pool in pools)
        signal = sum(pool.share * np.exp(-3000 * pool.radial) for pool in pools)
        assert signal > 1.2 * np.exp(-3000 * mean)


def test_without_weighting_tissues_are_as_bright_as_their_contrast_says():
    random = np.random.default_rng(0)
    shape = (5, 6, 7)
    tissues = Tissues(*(random.uniform(0.1, 0.3, shape).astype(np.float32) for _ in range(6)))
    share = random.uniform(0.2, 0.8, shape).astype(np.float32)
    ways = random.standard_normal((2, *shape, 3)).astype(np.float32)
    contrast = draw_contrast(random)
    total = np.zeros(shape, np.float32)
    for compartment in compartments_of(tissues, [(share, ways[0]), (1 - share, ways[1])], ways[0], contrast):
        total.ravel()[compartment.voxels] += compartment.signal(0.0, np.array([1.0, 0, 0]))
    expected = sum(contrast.b0[name] * getattr(tissues, name) for name in ("csf", "gm", "wm", "spots", "scalp"))
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_brightness_is_uneven_by_some_percent():
    part = centred_grid((20, 20, 20), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    spreads = [uneven_brightness(part, np.random.default_rng(seed)).std() for seed in range(8)]
    assert all(0.005 < spread < 0.25 for spread in spreads)
    assert max(spreads) > 2 * min(spreads)


def test_tissues_fill_the_brain(average, individual):
    tissues = tissues_of(individual, *average, WHOLE)
    filled = tissues.csf + tissues.gm + tissues.wm + tissues.spots
    inside = tissues.brain > 0.999
    np.testing.assert_allclose(filled[inside], 1, atol=2e-3)
    assert filled.max() < 1.002
    assert min(tissues.csf.min(), tissues.gm.min(), tissues.wm.min(), tissues.spots.min()) >= 0
    litres = {name: float(getattr(tissues, name).sum()) * 64e-6 for name in ("brain", "gm", "wm")}
    assert 1.2 < litres["brain"] < 2.4
    assert 0.35 < litres["wm"] < 1.0
    assert 0.35 < litres["gm"] < 1.2


def test_fibres_divide_white_matter_among_them(average, individual):
    tissues = tissues_of(individual, *average, WHOLE)
    fibres = all_fibres(individual, tissues, WHOLE)
    np.testing.assert_allclose(np.sum([share for share, _ in fibres], axis=0), 1, atol=1e-4)
    strongest = np.argmax([share for share, _ in fibres], axis=0)[tissues.wm > 0.5]
    assert set(strongest) == {0, 1, 2, 3}


def test_heads_have_their_local_fibres(average, monkeypatch):
    """Water of white matter runs in four systems; the share of the local one is that of the head."""
    monkeypatch.setattr(anatomy, "SURVEY_MM", 5.0)
    monkeypatch.setattr(anatomy, "LOCAL_VARIATION", 0.0)
    seen, compartments_of = [], anatomy.compartments_of

    def spy(tissues, fibres, *others):
        seen.extend(fibres)
        return compartments_of(tissues, fibres, *others)

    monkeypatch.setattr(anatomy, "compartments_of", spy)
    head = random_head(WHOLE.cropped(np.array([10, 12, 9]), (20, 24, 22)), np.random.default_rng(0))
    expected = draw_individual(average[0].grid, np.random.default_rng(0)).local_share
    np.testing.assert_allclose(seen[-1][0], expected, rtol=1e-4)
    np.testing.assert_allclose(np.sum([share for share, _ in seen], axis=0), 1, atol=1e-3)
    # Two pools of white matter for each of four systems, two of grey matter, one of each other tissue.
    assert len(head.compartments) == 4 * 2 + 2 + 3


def test_the_same_numbers_make_the_same_head_on_any_grid_and_others_another(average, monkeypatch):
    monkeypatch.setattr(anatomy, "SURVEY_MM", 5.0)
    part = WHOLE.cropped(np.array([10, 12, 9]), (20, 24, 22))
    tissue = [
        tissues_of(draw_individual(average[0].grid, np.random.default_rng(seed)), *average, grid)
        for seed, grid in ((0, WHOLE), (0, part), (1, part))
    ]
    np.testing.assert_allclose(tissue[0].wm[10:30, 12:36, 9:31], tissue[1].wm, atol=1e-3)
    assert np.abs(tissue[1].wm - tissue[2].wm).mean() > 0.05
    heads = [random_head(part, np.random.default_rng(0)) for _ in range(2)]
    np.testing.assert_array_equal(heads[0].t1w, heads[1].t1w)
    b0 = [head.signal(0.0, np.array([1.0, 0, 0])) for head in heads]
    np.testing.assert_array_equal(b0[0], b0[1])
    # Fluid is bright in a b0 volume and dark in the T1w.
    white, fluid = (heads[0].tissue == label for label in (3, 1))
    assert np.median(b0[0][fluid]) > 1.3 * np.median(b0[0][white])
    assert np.median(heads[0].t1w[fluid]) < 0.7 * np.median(heads[0].t1w[white])
