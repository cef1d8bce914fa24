"""What killed runs left half written goes, and nothing that another run is writing."""

import contextlib
import errno
import fcntl
import os
import time

import pytest

from bids_sr.bids.inputs import DwiSeries
from bids_sr.bids.outputs import OutputLayout, write_atomically
from bids_sr.workflows import engine, unfinished
from bids_sr.workflows.unfinished import GRACE, remove_unfinished, remove_unfinished_texts


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        (".sub-01_acq-a_res-1_desc-sr_dwi-0123456789ab.nii.gz", True),
        (".sub-01_acq-a_space-dwi_desc-preproc_T1w-0123456789ab.json", True),
        (".sub-01_acq-b_res-1_desc-sr_dwi-0123456789ab.nii.gz", False),
        (".sub-01_res-1_desc-sr_dwi-0123456789ab.nii.gz", False),
        (".sub-01_acq-a_run-1_desc-sr_dwi-0123456789ab.nii.gz", False),
        (".sub-01_acq-a_res-1_desc-sr_dwi-01234.nii.gz", False),
        ("sub-01_acq-a_res-1_desc-sr_dwi-0123456789ab.nii.gz", False),
        (".DS_Store", False),
    ],
)
def test_only_what_this_series_left_half_written_goes(tmp_path, name, goes):
    file = tmp_path / "ses-1" / "dwi" / name
    file.parent.mkdir(parents=True)
    file.touch()
    remove_unfinished(tmp_path, {"sub": "01", "acq": "a", "desc": "preproc"})
    assert file.exists() is not goes


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        (".sub-01-0123456789ab.html", True),
        (".README-0123456789ab", True),
        (".-0123456789ab.bidsignore", True),
        (".group_tensor-0123456789ab.tsv", False),
        (".bidsignore", False),
    ],
)
def test_half_written_texts_of_the_dataset_go(tmp_path, name, goes):
    (tmp_path / name).touch()
    remove_unfinished_texts(tmp_path)
    assert (tmp_path / name).exists() is not goes


def test_the_names_are_those_that_files_have_while_they_are_written(tmp_path):
    for name in ("sub-01_desc-sr_dwi.nii.gz", "README", ".bidsignore"):
        with write_atomically(tmp_path / name) as temporary:
            temporary.touch()
            assert unfinished._TEMPORARY.fullmatch(temporary.name)


def temporary_of(path):
    """The file that a killed run leaves of an output."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError), write_atomically(path) as temporary:
        pass
    temporary.touch()
    return temporary


@pytest.mark.parametrize("suffix", ["dwi", "T1w", "FA", "mask"])
@pytest.mark.parametrize("entities", [{"dir": "AP"}, {"acq": "b", "dir": "AP"}, {"part": "mag"}])
def test_every_kind_of_output_of_a_series_goes(tmp_path, suffix, entities):
    """BIDS gives a T1w no direction, so that of a series with one has another name."""
    series = DwiSeries(*[tmp_path] * 3, entities={"sub": "01", **entities})
    layout = OutputLayout(tmp_path)
    left = temporary_of(layout.path(series, suffix, extension=".nii.gz", desc="sr", res="1"))
    remove_unfinished(tmp_path, series.entities)
    assert not left.exists()


def test_what_a_series_of_a_like_name_is_writing_stays(tmp_path):
    other = DwiSeries(*[tmp_path] * 3, entities={"sub": "01", "acq": "dirAP"})
    left = temporary_of(OutputLayout(tmp_path).path(other, "dwi", extension=".nii.gz", desc="sr", res="1"))
    remove_unfinished(tmp_path, {"sub": "01", "dir": "AP"})
    assert left.exists()


@pytest.mark.parametrize(("age", "goes"), [(0.0, False), (GRACE - 60, False), (GRACE + 60, True)])
def test_where_nobody_is_kept_out_young_files_stay(tmp_path, age, goes):
    """They may be those that another run is writing."""
    left = [temporary_of(tmp_path / name) for name in ("sub-01_dwi.nii.gz", "README")]
    for file in left:
        os.utime(file, (time.time() - age,) * 2)
    remove_unfinished(tmp_path, {"sub": "01"}, older_than=GRACE)
    remove_unfinished_texts(tmp_path, older_than=GRACE)
    assert [file.exists() for file in left] == [not goes] * 2


@pytest.mark.parametrize("knows_locks", [True, False])
def test_a_run_removes_young_files_only_where_locks_keep_others_out(make_plan, monkeypatch, knows_locks):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if not knows_locks:
        monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(engine, "write_reports", lambda *_: 0)
    monkeypatch.setattr(engine, "_write_dataset", lambda *_: None)
    plan = make_plan()
    image = temporary_of(plan.layout.path(plan.series, "dwi", extension=".nii.gz", desc="sr", res="1"))
    page = temporary_of(plan.layout.report("01"))
    with engine._alone(plan):
        assert image.exists() is not knows_locks
    engine.write_summaries(plan.config, plan.card, engine.Work())
    assert [image.exists(), page.exists()] == [not knows_locks] * 2
