"""Runs over many series: nothing that a run holds for each of them may run out, and planning changes no result."""

import dataclasses
import os
import resource

import pytest

from bids_sr.config import Config
from bids_sr.errors import OpenFilesError
from bids_sr.records import SCHEMA, read_record, write_record
from bids_sr.workflows import engine
from tests.skeleton import Skeleton

N_SERIES = 60
#: Files that may be open besides those that are; finding and reading a series takes a few.
ROOM = 40


@pytest.fixture
def config(tmp_path, monkeypatch):
    """More series than files may be open, to be planned and not run."""
    raw = Skeleton(tmp_path / "raw")
    for number in range(N_SERIES):
        raw.dwi(f"sub-{number:02d}", shape=(6, 6, 4, 7))
    monkeypatch.setattr(engine, "write_summaries", lambda *_: 0)
    return Config(
        raw.root, tmp_path / "out", tmp_path / "work", scale=(2.0,) * 3, model="cubic", device="cpu", run_id="run"
    )


@pytest.fixture
def few_files():
    """A soft limit such as most systems have, only lower; the hard one as it is."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_open = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (is_open + ROOM, limits[1]))
    yield is_open + ROOM
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def finished(config):
    """A record of the first series, done with other options."""
    file = config.output_dir / "sub-00/figures/sub-00_res-1_desc-record.json"
    write_record(file, {"schema": SCHEMA, "status": "done", "fingerprint": "another", "outputs": []})
    return file


@pytest.mark.usefixtures("few_files")
def test_more_series_than_files_may_be_open_by_default(config, finished, monkeypatch):
    planned = []
    monkeypatch.setattr(engine, "run_workflow", lambda config, work, signals: planned.extend(work.plans) or [])
    assert engine.run(config) == 0
    assert len(planned) == N_SERIES
    assert read_record(finished)["status"] == "failed"
    assert list((config.output_dir / "logs").glob("*.lock")) == []


def test_too_many_series_for_the_system_are_one_line_and_spoil_no_result(config, finished, few_files, monkeypatch):
    monkeypatch.setattr(engine, "raise_file_limit", lambda: few_files)
    monkeypatch.setattr(engine, "FILES_AT_WORK", few_files - N_SERIES // 3)
    with pytest.raises(OpenFilesError, match=f"the {few_files} that .* --participant-label"):
        engine.run(config)
    assert read_record(finished)["status"] == "done"


def test_runs_with_other_outputs_meet_nowhere_in_one_work_folder(make_plan, tmp_path):
    """So that the lock in the output is the only one."""
    plan = make_plan()
    elsewhere = dataclasses.replace(plan, config=dataclasses.replace(plan.config, output_dir=tmp_path / "elsewhere"))
    assert elsewhere.fingerprint == plan.fingerprint
    assert elsewhere.workflow_name != plan.workflow_name
    assert plan.workflow_name == dataclasses.replace(plan).workflow_name
