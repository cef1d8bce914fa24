"""A model that uses the T1w and divides by the b0 runs through the app: with the T1w, without it, with a wrong one."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main
from tests.made_models import save_tiny_model

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    """Runs the app with some options; gives its record, its restored series and the methods text."""
    card = save_tiny_model(tmp_path_factory.mktemp("model"), ("volume", "t1w"), "b0")

    def with_options(*options):
        folder = tmp_path_factory.mktemp("run")
        words = [str(dataset), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1"]
        words += ["--scale", "1.3", "--model", card, "--device", "cpu", "--sloppy", *options]
        assert main(words) == 0
        (record,) = (folder / "out").rglob("*record.json")
        (image,) = (folder / "out").rglob("*desc-sr_dwi.nii.gz")
        before = record.stat().st_mtime_ns
        assert main(words) == 0
        assert record.stat().st_mtime_ns == before
        data = nib.load(image).get_fdata(dtype=np.float32)
        return json.loads(record.read_text()), data, (folder / "out" / "CITATION.md").read_text()

    return with_options


@pytest.fixture(scope="module")
def guided(run):
    return run()


@pytest.fixture(scope="module")
def alone(run):
    return run("--no-t1w")


def test_the_t1w_takes_part_and_this_is_told(guided):
    record, data, methods = guided
    assert record["model"]["uses_t1w"]
    assert record["t1w"] == {"used": True, "reason": ""}
    assert not any("zeros" in warning for warning in record["warnings"])
    assert "It was guided by the T1-weighted image." in methods
    assert np.isfinite(data).all()
    assert data.min() >= 0


def test_without_it_the_model_sees_zeros_and_this_is_told_once(alone):
    record, data, methods = alone
    assert record["t1w"] == {"used": False, "reason": "there is none"}
    assert sum("zeros" in warning for warning in record["warnings"]) == 1
    assert "was given zeros in its place" in methods
    assert np.isfinite(data).all()


def test_the_t1w_makes_a_difference(guided, alone):
    assert not np.allclose(guided[1], alone[1])


def test_the_t1w_of_something_else_is_not_shown(dataset, run, guided, alone, capfd):
    """Noise in the place of the head: the registration shares too little, and the result is that without a T1w."""
    (file,) = dataset.rglob("*_T1w.nii.gz")
    image, content = nib.load(file), file.read_bytes()
    noise = np.random.default_rng(0).uniform(0, 1000, image.shape).astype(np.float32)
    nib.Nifti1Image(noise, image.affine).to_filename(file)
    try:
        record, data, _ = run()
    finally:
        file.write_bytes(content)
    assert record["fingerprint"] != guided[0]["fingerprint"]
    assert record["t1w"]["used"] is False
    assert "cannot be trusted" in record["t1w"]["reason"]
    assert sum("zeros" in warning for warning in record["warnings"]) == 1
    assert "did not guide the model" in capfd.readouterr().err
    np.testing.assert_array_equal(data, alone[1])
