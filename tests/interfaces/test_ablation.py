"""Some volumes are restored without the T1w where it was used; where that fails, the run goes on and says so."""

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from nipype.pipeline.engine import Node

from bids_sr.geometry import Grid
from bids_sr.images import save_working
from bids_sr.interfaces.ablation import RestoreWithoutT1w
from bids_sr.interfaces.super_resolution import Restore
from tests.dwi.made_series import one_shell
from tests.made_models import save_tiny_model

GRID = Grid((9, 9, 8), np.diag([-2.0, 2.0, 2.5, 1.0]))
TARGET = GRID.scaled(np.full(3, 1.5))
USED = {"used": True, "reason": ""}


@pytest.fixture
def given(tmp_path):
    """What both stages are given."""
    table = one_shell(15)
    data = np.random.default_rng(0).uniform(50, 150, (*GRID.shape, 16)).astype(np.float32)
    mask = np.zeros(GRID.shape, bool)
    mask[3:6, 3:6, 2:6] = True
    np.savetxt(tmp_path / "bval", table.bvals[None])
    np.savetxt(tmp_path / "bvec", table.bvecs.T)
    return {
        "dwi_file": save_working(data, GRID.affine, tmp_path, "dwi"),
        "bval_file": tmp_path / "bval",
        "mask_file": save_working(mask, GRID.affine, tmp_path, "mask"),
        "target_shape": list(TARGET.shape),
        "target_affine": TARGET.affine.tolist(),
        "model": save_tiny_model(tmp_path, ("volume", "b0", "shell"), guided=True),
        "b0_threshold": 50.0,
        "label": "sub-01",
    }


def ablate(given, folder, t1w=USED):
    (folder / "ablate").mkdir()
    return RestoreWithoutT1w(**given, bvec_file=folder / "bvec", t1w=t1w).run(cwd=folder / "ablate").outputs


def test_the_volumes_are_those_of_a_run_without_the_t1w(given, tmp_path, capsys):
    """Also in what all volumes share, such as the mean of their shell."""
    outputs = ablate(given, tmp_path)
    assert "restored without the T1w (tiny): 4 of 4" in capsys.readouterr().err
    whole = Restore(**given).run(cwd=tmp_path).outputs
    expected = np.asarray(nib.load(whole.dwi_file).dataobj)
    assert len(outputs.volumes) == 4
    assert outputs.volumes[0] == 0
    np.testing.assert_array_equal(np.asarray(nib.load(outputs.dwi_file).dataobj), expected[..., outputs.volumes])
    assert outputs.failure == {}


@pytest.mark.parametrize("t1w", [{"used": False, "reason": "its registration cannot be trusted"}, {}])
def test_where_no_t1w_was_used_nothing_is_restored(given, tmp_path, monkeypatch, t1w):
    monkeypatch.setattr("bids_sr.interfaces.super_resolution.load_model", lambda *_: pytest.fail("it costs nothing"))
    outputs = ablate(given, tmp_path, t1w)
    assert outputs.volumes == []
    assert outputs.failure == {}
    assert not isdefined(outputs.dwi_file)


def test_a_failure_is_told_and_fails_nothing(given, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("bids_sr.interfaces.super_resolution.load_model", fail)
    outputs = ablate(given, tmp_path)
    assert outputs.failure["failed"]
    assert "Out of memory" in outputs.failure["reason"]
    assert outputs.volumes == []
    assert not isdefined(outputs.dwi_file)


def test_a_failure_is_not_kept_by_the_work_folder(given, tmp_path, monkeypatch):
    def node():
        return Node(RestoreWithoutT1w(**given, bvec_file=tmp_path / "bvec", t1w=USED), "ablate", base_dir=tmp_path)

    def fail(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("bids_sr.interfaces.super_resolution.load_model", fail)
        assert node().run().outputs.failure["failed"]
    assert node().run().outputs.failure == {}
