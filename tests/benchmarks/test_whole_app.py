"""The stages of a run are read from its log."""

import pytest

from benchmarks.whole_app import rows, stages, told_gb

LOG = """2026-01-01 00:00:00,000 INFO bids_sr: sub-01: restoring the series
2026-01-01 00:00:12,500 INFO bids_sr_file: sub-01: super_resolution.restore took 12.5 s
2026-01-01 00:00:13,000 INFO nipype.workflow: a: b took 3 s or so
"""


def test_stages_are_read(tmp_path):
    (tmp_path / "20260101.log").write_text(LOG)
    (tmp_path / "20260101.toml").write_text("a: b took 1.0 s")
    assert list(stages(tmp_path)) == [("super_resolution.restore", 12.5)]


def test_nothing_of_the_run_is_left_out():
    *named, others, whole = rows([("a", 60.0), ("b", 0.2), ("c", 0.3), ("d", 30.0)], 100.0)
    assert [row[0] for row in named] == ["a", "d"]
    assert float(others[1]) == pytest.approx(0.5)
    assert whole[1] == "100.0"


def test_the_memory_that_a_dry_run_tells_is_that_of_its_largest_series():
    table = "series  memory\nsub-01  2.5 GB\nsub-02  12.5 GB\nModel light; processors: 2, memory: 23.0 GB. No GPU."
    assert told_gb(table) == 12.5
