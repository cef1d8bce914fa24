"""The stage of the guards reads a run's files and leaves maps, numbers, sentences and pictures."""

import json

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import isdefined

from bids_sr.dwi.tensor import TensorMaps
from bids_sr.images import save_working
from bids_sr.interfaces.consistency import CheckConsistency
from bids_sr.interfaces.tensor import save_maps
from bids_sr.models.interpolation import cubic_on_grid
from bids_sr.reports.figures import picture_files
from tests.dwi.test_consistency import GRID, SIGMA, ball, brain, fine_series, gradients

TARGET = GRID.scaled(np.full(3, 2.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("consistency")


@pytest.fixture(scope="module")
def stage(folder):
    """The stage with all that it needs but volumes without the T1w, and the series to take them from."""
    table = gradients()
    truth = fine_series(GRID, table)
    acquired = truth + np.random.default_rng(0).normal(0, SIGMA, truth.shape).astype(np.float32)
    cubic = np.stack([cubic_on_grid(volume, GRID, TARGET) for volume in np.moveaxis(acquired, -1, 0)], axis=-1)
    restored = cubic * (1 + 0.4 * ball(TARGET, [6.0, -5.0, 3.0], 3.0)[..., None].astype(np.float32))
    np.savetxt(folder / "bval", table.bvals[None])
    np.savetxt(folder / "bvec", table.bvecs.T)
    zero = np.zeros(GRID.shape, np.float32)
    files = {
        "dwi_file": save_working(acquired, GRID.affine, folder, "acquired"),
        "mask_file": save_working(brain(GRID), GRID.affine, folder, "mask"),
        "target_mask_file": save_working(np.ones(TARGET.shape, bool), TARGET.affine, folder, "fine_mask"),
        "tissue_file": save_working(3 * brain(GRID).astype(np.uint8), GRID.affine, folder, "tissue"),
        "acquired_maps": save_maps(
            TensorMaps(zero, zero, zero, zero, np.zeros((*GRID.shape, 3), np.float32)), GRID.affine, folder
        ),
        "sr_file": save_working(restored, TARGET.affine, folder, "sr"),
        "cubic_file": save_working(cubic, TARGET.affine, folder, "cubic"),
    }

    def run(volumes=None, **options):
        given = files | {"bval_file": str(folder / "bval"), "bvec_file": str(folder / "bvec")} | options
        if volumes is not None:
            given |= {"without_t1w_volumes": volumes}
            given["without_t1w_file"] = save_working(cubic[..., volumes], TARGET.affine, folder, "without")
        given = {name: value for name, value in given.items() if value is not None}
        interface = CheckConsistency(
            **given, b0_threshold=50.0, figures_dir=str(folder / "figures"), stem="sub-01", label="sub-01"
        )
        return interface.run(cwd=str(folder)).outputs

    return run


@pytest.fixture(scope="module")
def ran(stage, folder):
    return stage([0, 3]), folder


def test_the_invented_region_is_worst_and_cubic_has_none(ran):
    outputs, _ = ran
    worst = outputs.departure["sr"]["regions"][0]
    assert np.linalg.norm(np.array(worst["centre_mm"]) - [6, -5, 3]) < 3
    assert worst["z"] > 2 * max((abs(region["z"]) for region in outputs.departure["cubic"]["regions"]), default=3)
    assert "brighter" in outputs.departure["sentence"]


def test_the_maps_lie_on_the_acquired_grid(ran):
    outputs, _ = ran
    departed, effect = nib.load(outputs.departure_file), nib.load(outputs.t1w_effect_files)
    assert departed.shape == (*GRID.shape, 2) and departed.get_data_dtype() == np.float32
    assert effect.shape == GRID.shape
    np.testing.assert_allclose(departed.affine, GRID.affine)
    voxel = outputs.t1w_effect["most"]["voxel"]
    assert effect.get_fdata()[tuple(voxel)] == effect.get_fdata().max() > 5


def test_the_metadata_tell_which_shell_and_which_volumes(ran):
    outputs, _ = ran
    assert outputs.departure_fields == {"BValues": [0.0, 1000.0]}
    assert outputs.t1w_effect_fields == {"Volumes": [0, 3]}


def test_the_record_is_json_and_every_picture_is_there(ran):
    outputs, folder = ran
    for part in (outputs.departure, outputs.t1w_effect):
        assert json.loads(json.dumps(part, allow_nan=False)) == part
        assert part["done"]
        names = picture_files(part["figures"])
        assert names
        assert all((folder / "figures" / name).is_file() for name in names)
    assert outputs.t1w_effect["figures"]["most"]["contrast"] == "dwi"


def test_what_the_t1w_changed_in_the_tensor_is_told_where_there_is_one(stage):
    """Brighter by the same factor in all volumes: the signal changes, the tensor does not."""
    outputs = stage([0, 2, 4, 6, 8, 10, 12, 14])
    assert len(outputs.t1w_effect_files) == 3
    row = outputs.t1w_effect["tissues"]["brain"]
    assert outputs.t1w_effect["most"]["change"] > 5
    assert row["mean"] > 0.05
    assert row["fa"] < 1e-3
    assert row["md"] < 1e-6
    assert outputs.t1w_effect["figures"]["most"]["contrast"] == "fa"
    assert outputs.t1w_effect["sentence"].startswith("The T1w changed FA by 0.000")


def test_interpolation_as_the_model_is_compared_with_nothing(stage):
    outputs = stage(cubic_file=None)
    assert "cubic" not in outputs.departure
    assert "cubic" not in outputs.departure["sentence"]
    assert outputs.t1w_effect == {}
    assert not isdefined(outputs.t1w_effect_files)


def test_a_guard_that_fails_is_told_in_its_place_and_stops_nothing(stage, monkeypatch, capsys):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("bids_sr.interfaces.consistency.departure", fail)
    outputs = stage([0, 3])
    assert outputs.departure == {"done": False, "failed": True, "reason": "Out of memory (MemoryError)."}
    assert not isdefined(outputs.departure_file)
    assert outputs.t1w_effect["done"]
    assert (
        "sub-01: Where the result departs from the acquired scan could not be told: Out of" in capsys.readouterr().err
    )


def test_scans_that_cannot_be_read_fail_both_guards_alone(stage, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no such shell")

    monkeypatch.setattr("bids_sr.interfaces.consistency.acquired_support", fail)
    outputs = stage([0, 3])
    for part in (outputs.departure, outputs.t1w_effect):
        assert part == {"done": False, "failed": True, "reason": "ValueError: no such shell"}


def test_volumes_that_could_not_be_restored_are_told(stage):
    failure = {"done": False, "failed": True, "reason": "Out of memory."}
    outputs = stage(without_t1w_failure=failure)
    assert outputs.t1w_effect == failure
    assert outputs.departure["done"]


def test_an_interruption_is_not_taken_for_a_failure(stage, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bids_sr.interfaces.consistency.departure", stop)
    with pytest.raises(KeyboardInterrupt):
        stage()
