"""A run with --uncertainty writes standard deviations that lie where the result does, and says so in the report."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main
from tests.made_models import save_tiny_model

pytestmark = pytest.mark.integration
INPUTS = ("volume", "b0", "shell")


def words(dataset, folder, *options):
    places = [str(dataset), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1"]
    return [*places, "--scale", "1.3", "--device", "cpu", "--no-self-check", "--sloppy", *options]


@pytest.fixture(scope="module")
def out(dataset, tmp_path_factory):
    """The output of a run with a model whose deviations are a tenth of the level of the shell."""
    folder = tmp_path_factory.mktemp("uncertain")
    card = save_tiny_model(folder / "model", INPUTS, guided=True, uncertain=True)
    assert main(words(dataset, folder, "--model", card, "--uncertainty")) == 0
    return folder / "out"


def load(out, ending):
    (file,) = out.rglob(f"*_{ending}.nii.gz")
    return nib.load(file), json.loads(file.with_name(file.name.replace(".nii.gz", ".json")).read_text())


def test_the_series_has_deviations_where_it_was_restored(out):
    restored, _ = load(out, "desc-sr_dwi")
    deviations, sidecar = load(out, "desc-uncertainty_dwimap")
    mask = np.asarray(load(out, "res-*_desc-brain_mask")[0].dataobj) > 0
    assert deviations.shape == restored.shape
    np.testing.assert_allclose(deviations.affine, restored.affine)
    values = deviations.get_fdata()
    assert np.all(values[mask] > 0) and np.all(values[0, 0, 0] == 0)
    # One level per shell, of which the made model tells a tenth.
    assert values[mask].std(axis=0).max() < 1e-3 * values[mask].mean()
    assert "tandard deviation" in sidecar["Description"] and "desc-sr_dwi" in sidecar["Sources"][0]


@pytest.mark.parametrize(("suffix", "largest"), [("FA", 0.5), ("ADC", 1e-3)])
def test_the_tensor_has_deviations_inside_the_brain(out, suffix, largest):
    image, sidecar = load(out, f"desc-uncertainty_{suffix}")
    mask = np.asarray(load(out, "res-*_desc-brain_mask")[0].dataobj) > 0
    values = image.get_fdata()
    assert 0 < np.median(values[mask]) < largest
    assert not values[~mask].any()
    assert "STANDARD DEVIATION" in sidecar["Description"]


def test_record_and_report_tell_it(out):
    (record,) = (json.loads(file.read_text()) for file in out.rglob("*record.json"))
    told = record["uncertainty"]
    assert told["calibration"] == {"scaled_to": ["sub-y"], "least": 0.8, "most": 0.85}
    # Of the restored signal, which an untrained model moves away from the level of the shell.
    assert told["medians"]["dwi"] == pytest.approx(0.1, rel=0.5)
    assert any("uncertaintyFa" in name for name in record["outputs"])
    page = next(out.glob("sub-*.html")).read_text()
    assert told["sentence"].split(",")[0] in page
    assert "90 % of the intensities of sub-y" in page and "80.0 % to 85.0 %" in page


def test_a_model_that_does_not_tell_it_is_refused(dataset, tmp_path, capsys):
    card = save_tiny_model(tmp_path / "model", INPUTS, guided=True)
    assert main(words(dataset, tmp_path, "--model", card, "--uncertainty")) == 2
    assert "does not tell how uncertain it is" in capsys.readouterr().err
    assert main(words(dataset, tmp_path, "--model", "cubic", "--uncertainty", "--dry-run")) == 2
