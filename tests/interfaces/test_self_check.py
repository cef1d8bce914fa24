"""The stage tries the model on the scan itself; what fails in it is told and fails nothing else."""

import json

import numpy as np
import pytest
import torch

from bids_sr.bids.outputs import SELF_CHECK_COLUMNS
from bids_sr.errors import EmptyMaskError
from bids_sr.images import save_working
from bids_sr.interfaces.derivatives import SaveTable
from bids_sr.interfaces.record import WriteRecord
from bids_sr.interfaces.self_check import RunSelfCheck
from bids_sr.reports.figures import picture_files
from tests.evaluation.made import reference
from tests.made_models import save_tiny_model

PLAIN, GUIDED = ("volume", "b0", "shell"), ("volume", "b0", "t1w")


@pytest.fixture
def stage(tmp_path):
    """Runs the stage on a made series of one tensor with a little noise."""
    torch.set_num_threads(1)
    made = reference(14)
    data = made.data + np.random.default_rng(0).normal(0, 10, made.data.shape).astype(np.float32)
    data[0, 0, 0] = np.nan
    np.savetxt(tmp_path / "bval", made.gradients.bvals[None])
    np.savetxt(tmp_path / "bvec", made.gradients.bvecs.T)
    affine = made.grid.affine
    tissues = np.where(made.mask, 3, 0).astype(np.uint8)

    def run(inputs=PLAIN, image=None, **options):
        (tmp_path / "run").mkdir(exist_ok=True)
        given = {
            "dwi_file": save_working(data, affine, tmp_path, "dwi"),
            "mask_file": save_working(made.mask, affine, tmp_path, "mask"),
            "tissue_file": save_working(tissues, affine, tmp_path, "tissues"),
            "model": save_tiny_model(tmp_path, inputs),
        }
        interface = RunSelfCheck(
            bval_file=tmp_path / "bval", bvec_file=tmp_path / "bvec", scale=(2.0, 1.5, 1.0), b0_threshold=50.0,
            figures_dir=str(tmp_path / "figures"), stem="sub-01_res-1", label="sub-01", **(given | options),
        )  # fmt: skip
        if image is not None:
            interface.inputs.t1w_file = save_working(image, affine, tmp_path, "t1w")
        return interface.run(cwd=tmp_path / "run").outputs

    return run


def test_the_record_holds_the_verdict_the_figures_and_what_was_tried(stage, tmp_path, capsys):
    outputs = stage()
    part = json.loads(json.dumps(outputs.self_check))
    assert part["done"]
    assert part["scale"] == [2.0, 1.5556, 1.0]
    assert part["voxel_sizes"] == [4.0, 3.1111, 2.0]
    assert (part["n_b0"], part["n_weighted"], len(part["volumes"])) == (1, 12, 13)
    assert part["rows"] == outputs.rows
    assert {row["tissue"] for row in outputs.rows} == {"brain", "WM"}
    assert "volumes of the self-check restored (tiny): 13 of 13" in capsys.readouterr().err
    names = picture_files(part["figures"])
    assert len(names) == 8
    assert all((tmp_path / "figures" / name).is_file() for name in names)


def test_the_t1w_guides_the_check_where_it_guided_the_run(stage):
    t1w = np.random.default_rng(1).uniform(100, 900, reference().grid.shape).astype(np.float32)
    used = stage(GUIDED, t1w, t1w={"used": True, "reason": ""}).rows
    unused = stage(GUIDED, t1w, t1w={"used": False, "reason": "its registration cannot be trusted"}).rows
    without = stage(GUIDED).rows
    assert unused == without
    assert used != without


def empty_mask(*_, **__):
    raise EmptyMaskError(image="degraded to 9 mm", reason="no voxel lies in the brain")


@pytest.mark.parametrize(
    ("error", "words"), [(empty_mask, "no voxel lies in the brain"), (lambda *_: 1 / 0, "ZeroDivisionError")]
)
def test_a_check_that_fails_is_told_in_its_place(stage, monkeypatch, capsys, error, words):
    monkeypatch.setattr("bids_sr.interfaces.self_check.self_check", error)
    outputs = stage()
    assert outputs.rows == []
    assert outputs.self_check["failed"] and not outputs.self_check["done"]
    assert words in outputs.self_check["reason"]
    assert "sub-01: The self-check could not be done: " in capsys.readouterr().err


def test_memory_that_runs_out_fails_the_check_alone(stage, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("bids_sr.interfaces.self_check.self_check", fail)
    assert "Out of memory" in stage().self_check["reason"]


def test_an_interruption_is_not_taken_for_a_failure(stage, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bids_sr.interfaces.self_check.self_check", stop)
    with pytest.raises(KeyboardInterrupt):
        stage()


@pytest.mark.parametrize("rows", [[], [{"measure": "FA", "tissue": "WM", "n_voxels": 3, "cubic": None, "sr": 0.1}]])
def test_its_table_is_saved_with_its_own_columns_also_where_it_is_empty(tmp_path, rows):
    file = tmp_path / "sub-01_desc-selfcheck_stats.tsv"
    SaveTable(rows=rows, out_file=str(file), columns=SELF_CHECK_COLUMNS).run(cwd=tmp_path)
    lines = file.read_text().splitlines()
    assert lines[0].split("\t")[:3] == ["measure", "tissue", "n_voxels"]
    assert lines[1:] == ["FA\tWM\t3\tn/a\t0.1" for _ in rows]
    assert set(json.loads(file.with_suffix(".json").read_text())) == set(lines[0].split("\t"))


def test_its_pictures_are_among_the_outputs_of_the_record(tmp_path):
    check = {"done": True, "level": "no", "sentence": "It did not help.", "figures": {"dwi": {"file": "a.webp"}}}
    file = tmp_path / "sub-01" / "figures" / "sub-01_desc-record.json"
    file.parent.mkdir(parents=True)
    table = tmp_path / "table.tsv"
    table.touch()
    WriteRecord(
        record={"schema": 1}, figures={}, self_check=check, self_check_seconds=[2.5], output_dir=str(tmp_path),
        outputs=[[str(table)]], out_file=str(file),
    ).run(cwd=tmp_path)  # fmt: skip
    record = json.loads(file.read_text())
    assert record["outputs"] == ["sub-01/figures/a.webp", "table.tsv"]
    assert record["seconds"] == {"self_check": 2.5, "total": 2.5}
    assert record["warnings"] == ["It did not help."]
