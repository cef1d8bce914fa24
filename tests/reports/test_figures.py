"""Pictures hold the voxels of their slice and nothing of a face."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bids_sr.reports.colours import FA_RANGE, to_grey
from bids_sr.reports.figures import Anatomy, picture_files, save_series_figures
from bids_sr.reports.planes import PLANES, cut, make_frame
from tests.reports.brains import anatomy, averaged, fine_panel, panel


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    acquired = panel()
    figures = save_series_figures(
        folder,
        "sub-01_res-1",
        acquired=acquired,
        sr=fine_panel(),
        cubic=fine_panel(),
        dwi_volume=1,
        dwi_b=1000.0,
        t1w=anatomy(),
        averaged=averaged(acquired),
        tissues=np.where(acquired.mask, 1 + (acquired.fa > 0.3) + (acquired.fa > 0.6), 0).astype(np.uint8),
        bvals=np.array([0.0, 1000, 1000]),
        bvecs=np.array([[np.nan] * 3, [1, 0, 0], [0, 0, 1]]),
    )
    return folder, figures


def test_the_description_is_json_and_names_every_file(drawn):
    folder, figures = drawn
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert sorted(picture_files(figures)) == sorted(file.name for file in folder.iterdir())


def test_a_picture_is_the_voxels_of_its_slice(drawn):
    folder, figures = drawn
    acquired = panel()
    frame = make_frame(acquired.affine, acquired.mask)
    for plane in PLANES:
        expected = to_grey(cut(frame, acquired.fa, acquired.affine, plane).pixels, FA_RANGE)
        shown = np.asarray(Image.open(folder / figures["fa"]["acquired"][plane.name]["file"]).convert("L"))
        np.testing.assert_array_equal(shown, expected)


def test_every_contrast_has_every_method_and_plane(drawn):
    _, figures = drawn
    views = {plane.name + suffix for plane in PLANES for suffix in ("", "_zoom")}
    for contrast in ("b0", "dwi", "fa", "md", "colour_fa"):
        for method in ("acquired", "cubic", "sr"):
            assert set(figures[contrast][method]) == views
    assert set(figures["difference"]["fa"]) == {"range", "cubic", "sr"}
    assert figures["dwi"]["volume"] == 1 and figures["dwi"]["b"] == 1000.0


def test_agreement_states_the_known_difference(drawn):
    _, figures = drawn
    statistics = figures["agreement"]["fa"]["sr"]["statistics"]
    assert statistics["bias"] == pytest.approx(0.1, abs=1e-6)
    assert statistics["upper"] - statistics["lower"] < 1e-4
    assert figures["agreement"]["fa"]["cubic"]["statistics"]["correlation"] == pytest.approx(1.0)


def test_histograms_are_shares(drawn):
    _, figures = drawn
    for tissue in ("WM", "GM", "CSF"):
        assert sum(figures["distributions"]["fa"][tissue]["acquired"]) == pytest.approx(1.0, abs=1e-3)


def test_no_voxel_of_the_t1w_is_shown_outside_the_brain(tmp_path):
    """A bright head around a dark brain must leave no bright pixel."""
    t1w = anatomy()
    head = np.where(t1w.data > 0, t1w.data, 1e4).astype(np.float32)
    acquired = panel()
    inner = replace(acquired, mask=acquired.mask & (np.indices(acquired.mask.shape)[0] > 8))
    figures = save_series_figures(tmp_path, "x", acquired=inner, sr=fine_panel(), t1w=Anatomy(head, t1w.affine))
    frame = make_frame(inner.affine, inner.mask)
    shown = np.asarray(Image.open(tmp_path / figures["registration"]["t1w"]["axial"]["file"]).convert("L"))
    brain = cut(frame, inner.mask, inner.affine, PLANES[2]).pixels
    whole = np.asarray(Image.fromarray(brain).resize(shown.shape[::-1], Image.Resampling.NEAREST))
    assert shown[~whole].mean() < 2


def test_the_borders_of_the_t1w_are_drawn(drawn):
    folder, figures = drawn
    drawing = (folder / figures["registration"]["contours"]["axial"]["file"]).read_text()
    assert drawing.count("<path") == 2 and "M" in drawing and "nan" not in drawing


def test_the_least_that_can_be_shown(tmp_path):
    """Only b0: no tensor, no T1w, no cubic; one voxel thick along one axis."""
    thin = panel((20, 22, 1))
    bare = replace(thin, dwi=None, fa=None, md=None, v1=None, mask=np.ones(thin.mask.shape, dtype=bool))
    figures = save_series_figures(tmp_path, "x", acquired=bare, sr=bare)
    assert set(figures) == {"planes", "b0", "windows", "mask"}


def test_a_brain_of_one_voxel_is_no_accident(tmp_path):
    acquired = panel()
    mask = np.zeros_like(acquired.mask)
    mask[10, 10, 6] = True
    figures = save_series_figures(tmp_path, "x", acquired=replace(acquired, mask=mask), sr=fine_panel(), t1w=anatomy())
    assert "b0" in figures
