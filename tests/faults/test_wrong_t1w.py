"""A T1w that is not what it should be does no harm through the whole app: left out and told, or moved and told."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tests.faults.runs import Place, run
from tests.made_models import save_tiny_model

pytestmark = pytest.mark.faults


def stranger(data, affine):
    """A head of the same outline with nothing of the same anatomy in it."""
    head = data > 0.05 * data.max()
    inside = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=data.shape), 3)
    return np.where(head, 500 + 1000 * inside, 0), affine


def inverted(data, affine):
    """Bright where it was dark, as a T2w is."""
    return np.where(data > 0.05 * data.max(), 1.2 * data.max() - data, 0), affine


def cropped(data, affine):
    """The front of the head alone."""
    first = data.shape[1] * 3 // 5
    moved = affine.copy()
    moved[:3, 3] += first * affine[:3, 1]
    return data[:, first:], moved


def displaced(data, affine):
    """The same head elsewhere in the scanner."""
    moved = affine.copy()
    moved[:3, 3] += [40, -25, 15]
    return data, moved


#: What is done to the T1w, what of it is told, and why it is not used.
WRONG = {
    stranger: ("share little", "it shares little with the b0"),
    inverted: ("its contrast is not that of a T1w", "its contrast is not that of a T1w"),
    cropped: ("of the brain. Check whether it is cropped", "it shows only"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small head of the demo, on which the registration is known to work."""
    from bids_sr.demo.dataset import make_dataset

    folder = tmp_path_factory.mktemp("wrong") / "raw"
    make_dataset(folder, small=True)
    return folder


@pytest.fixture(scope="module")
def restore(small, tmp_path_factory):
    """Runs the app on the head with a T1w changed in some way; gives its results."""
    card = save_tiny_model(tmp_path_factory.mktemp("model"), ("volume", "b0"), "b0", guided=True)

    def with_t1w(change=None, *options):
        folder = tmp_path_factory.mktemp("run")
        place = Place(folder / "raw", folder / "out", folder / "work")
        shutil.copytree(small, place.dataset, ignore=shutil.ignore_patterns("derivatives"))
        if change is not None:
            (file,) = place.dataset.rglob("*_T1w.nii.gz")
            image = nib.load(file)
            data, affine = change(np.asarray(image.dataobj, np.float32), image.affine)
            nib.Nifti1Image(data.astype(np.float32), affine).to_filename(file)
        words = [str(place.dataset), str(place.out), "participant", "-w", str(place.work), "--scale", "1.3"]
        finished = run([*words, "--model", card, "--device", "cpu", "--nprocs", "1", *options])
        assert finished.code == 0, finished.text
        return Results(place.out, finished.text)

    return with_t1w


class Results:
    """What a run left."""

    def __init__(self, out, log):
        self.log = log
        (record,) = out.rglob("*record.json")
        self.record = json.loads(record.read_text())
        self.sidecar = json.loads(next(out.rglob("*desc-sr_dwi.json")).read_text())
        self.page = next(out.glob("sub-*.html")).read_text()
        self.data = np.asarray(nib.load(next(out.rglob("*desc-sr_dwi.nii.gz"))).dataobj)
        self.effect = list(out.rglob("*t1weffect*"))


@pytest.fixture(scope="module")
def own(restore):
    return restore()


@pytest.fixture(scope="module")
def alone(restore):
    return restore(None, "--no-t1w")


@pytest.mark.parametrize("change", list(WRONG), ids=lambda change: change.__name__)
def test_a_wrong_t1w_is_left_out_and_told_everywhere(restore, own, alone, change):
    found = restore(change)
    np.testing.assert_array_equal(found.data, alone.data)
    assert not np.array_equal(found.data, own.data)
    warning, reason = WRONG[change]
    assert found.record["t1w"]["used"] is False and reason in found.record["t1w"]["reason"]
    assert found.sidecar["T1wUsed"] is False and reason in found.sidecar["T1wNotUsedBecause"]
    for words in (warning, "did not guide the model"):
        assert words in found.log
        assert any(words in told for told in found.record["warnings"])
        assert any(words in told for told in found.sidecar["Warnings"])
        assert words in found.page
    assert found.effect == [] and "t1w_effect" not in found.record


def test_a_t1w_from_elsewhere_is_moved_back_and_that_is_told(restore, own):
    found = restore(displaced)
    assert found.record["t1w"]["used"] is True
    moved = found.record["registration"]["translation_mm"]
    assert moved == pytest.approx(np.linalg.norm([40, -25, 15]), abs=8)
    words = f"The T1w image was moved by {moved:.0f} mm"
    assert any(words in warning for warning in found.record["warnings"] + found.sidecar["Warnings"])
    assert words in found.page and words in found.log
    # Where the search ends depends a little on where it starts.
    difference = np.abs(found.data - own.data)
    assert np.median(difference) <= 0.002 * own.data.max()
    assert np.corrcoef(found.data.ravel(), own.data.ravel())[0, 1] > 0.999
