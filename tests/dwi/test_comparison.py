"""Differences that are put in must be read off; tissues that are made must be found."""

import json

import numpy as np
import pytest
from scipy import ndimage

from bids_sr.dwi.comparison import TISSUES, angles, compare, tissue_classes
from bids_sr.dwi.tensor import TensorMaps


@pytest.fixture
def brain():
    """Shells of fluid, grey and white matter with their FA, MD, b0 and T1w, and the labels."""
    shape = (36, 40, 32)
    centre = (np.array(shape) - 1) / 2
    radius = np.linalg.norm((np.indices(shape).T - centre) / (centre - 1), axis=-1).T
    labels = np.select([radius < 0.2, radius < 0.65, radius < 0.85, radius < 1], [1, 3, 2, 1], 0)
    noise = np.random.default_rng(0).normal(0, 1, (4, *shape))
    values = {
        "fa": (0, 0.1, 0.12, 0.45),
        "md": (0, 2.8e-3, 0.85e-3, 0.75e-3),
        "b0": (0, 900, 400, 300),
        "t1w": (0, 30, 60, 90),
    }
    spread = {"fa": 0.03, "md": 5e-5, "b0": 10, "t1w": 4}
    maps = {
        name: np.array(values[name])[labels] + (labels > 0) * spread[name] * noise[i] for i, name in enumerate(values)
    }
    return labels, {name: np.abs(values) for name, values in maps.items()}


def dice(found, truth, label):
    return 2 * ((found == label) & (truth == label)).sum() / ((found == label).sum() + (truth == label).sum())


@pytest.mark.parametrize("with_t1w", [False, True])
def test_made_tissues_are_found(brain, with_t1w):
    labels, maps = brain
    shading = 1 + 0.4 * np.linspace(-1, 1, 36)[:, None, None]
    t1w = maps["t1w"] * shading if with_t1w else None
    found = tissue_classes(maps["fa"], maps["md"], maps["b0"], labels > 0, t1w)
    assert found.dtype == np.uint8
    assert not found[labels == 0].any()
    for label in TISSUES.values():
        assert dice(found, labels, label) > 0.95, label


def test_a_t1w_of_another_head_is_not_believed(brain):
    labels, maps = brain
    strange = ndimage.gaussian_filter(np.random.default_rng(1).uniform(0, 100, labels.shape), 1)
    args = (maps["fa"], maps["md"], maps["b0"], labels > 0)
    np.testing.assert_array_equal(tissue_classes(*args, strange), tissue_classes(*args))


@pytest.mark.parametrize("t1w", [np.zeros((36, 40, 32)), np.full((36, 40, 32), np.nan), np.ones((36, 40, 32))])
def test_an_empty_t1w_leaves_the_rule(brain, t1w):
    labels, maps = brain
    args = (maps["fa"], maps["md"], maps["b0"], labels > 0)
    np.testing.assert_array_equal(tissue_classes(*args, t1w), tissue_classes(*args))


def test_where_the_t1w_ends_the_rule_goes_on(brain):
    labels, maps = brain
    half = maps["t1w"].copy()
    half[:12] = 0
    found = tissue_classes(maps["fa"], maps["md"], maps["b0"], labels > 0, half)
    assert dice(found[:12], labels[:12], 3) > 0.9


def test_nothing_in_nothing_out():
    empty = np.zeros((3, 3, 3))
    assert not tissue_classes(empty, empty, empty, empty > 0).any()


def made_maps(seed=0):
    rng = np.random.default_rng(seed)
    scalars = [rng.uniform(0.1, 0.9, (6, 5, 4)).astype(np.float32) for _ in range(4)]
    v1 = rng.normal(size=(6, 5, 4, 3)).astype(np.float32)
    return TensorMaps(*scalars, v1 / np.linalg.norm(v1, axis=-1, keepdims=True))


def row(rows, **wanted):
    return next(r for r in rows if all(r[key] == value for key, value in wanted.items()))


def test_known_differences_are_reported():
    maps, mask = made_maps(), np.ones((6, 5, 4), bool)
    tissues = np.tile(np.array([1, 2, 3, 3], np.uint8), (6, 5, 1))
    turned = np.radians(10)
    across = np.cross(maps.v1, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    v1 = -(np.cos(turned) * maps.v1 + np.sin(turned) * across).astype(np.float32)
    shifted = TensorMaps(maps.fa + np.float32(0.05), maps.md * 2, maps.ad, maps.rd[::-1], v1)
    rows = compare(maps, {"sr": shifted}, tissues, mask)
    assert len(rows) == 4 * 4 * 2
    assert all(list(r) == list(rows[0]) for r in rows)
    fa = row(rows, map="FA", tissue="WM", method="sr")
    assert fa["n_voxels"] == 60
    np.testing.assert_allclose(
        [fa["bias"], fa["mae"], fa["correlation"], fa["v1_angle"]], [0.05, 0.05, 1, 10], rtol=1e-3
    )
    md = row(rows, map="MD", tissue="brain", method="sr")
    np.testing.assert_allclose(md["bias"], maps.md.mean(), rtol=1e-5)
    assert md["v1_angle"] is None
    ad = row(rows, map="AD", tissue="CSF", method="sr")
    np.testing.assert_allclose([ad["bias"], ad["mae"], ad["correlation"]], [0, 0, 1], atol=1e-9)


def test_the_acquired_maps_have_no_errors_and_json_holds_the_table():
    maps = made_maps()
    rows = compare(maps, {}, np.zeros((6, 5, 4), np.uint8), np.ones((6, 5, 4), bool))
    whole = row(rows, map="FA", tissue="brain")
    np.testing.assert_allclose(
        [whole["mean"], whole["sd"], whole["median"]], [maps.fa.mean(), maps.fa.std(), np.median(maps.fa)], rtol=1e-5
    )
    assert [whole["bias"], whole["mae"], whole["correlation"]] == [None] * 3
    assert row(rows, map="FA", tissue="WM")["n_voxels"] == 0
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_a_constant_map_has_no_correlation():
    maps = made_maps()
    flat = TensorMaps(np.ones_like(maps.fa), maps.md, maps.ad, maps.rd, maps.v1)
    rows = compare(maps, {"cubic": flat}, np.full((6, 5, 4), 3, np.uint8), np.ones((6, 5, 4), bool))
    assert row(rows, map="FA", tissue="WM", method="cubic")["correlation"] is None


def test_angles_forget_the_sign_and_skip_zero_vectors():
    first = np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 0]])
    second = np.array([[-2.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(angles(first, second), [0, 90], atol=1e-6)
