"""The log tells how long each stage took."""

import logging
from types import SimpleNamespace

import pytest

from bids_sr.workflows import log
from bids_sr.workflows.log import StageMonitor


def no_signal():
    """Nobody asked the run to stop."""


@pytest.fixture
def told(monkeypatch):
    """What goes to the log file."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    monkeypatch.setattr(log.file_logger, "handlers", [handler])
    log.file_logger.setLevel(logging.INFO)
    return lines


def test_a_stage_that_ends_is_told_with_its_time(told, monkeypatch):
    now = iter([10.0, 22.5])
    monkeypatch.setattr(log.time, "monotonic", lambda: next(now))
    monitor = StageMonitor({"sub_01": "sub-01"}, no_signal)
    node = SimpleNamespace(_hierarchy="bids_sr.sub_01.super_resolution", name="restore")
    monitor(node, "start")
    monitor(node, "end")
    assert told == ["sub-01: super_resolution.restore took 12.5 s"]


def test_a_stage_that_fails_is_kept_and_has_no_time(told):
    monitor = StageMonitor({"sub_01": "sub-01"}, no_signal)
    node = SimpleNamespace(_hierarchy="bids_sr.sub_01.preprocess", name="mask")
    monitor(node, "start")
    monitor(node, "exception")
    assert monitor.failed == [node]
    assert told == []
