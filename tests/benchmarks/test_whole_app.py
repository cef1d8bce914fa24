"""The stages of a run are read from what nipype wrote of its nodes."""

import pytest

from benchmarks.whole_app import rows, stages

REPORT = """Node: a (restore)
 Hierarchy : sr.sub_01.restore
 Exec ID : restore
* duration : 12.5
"""


def test_stages_are_read(tmp_path):
    folder = tmp_path / "a" / "_report"
    folder.mkdir(parents=True)
    (folder / "report.rst").write_text(REPORT)
    (tmp_path / "b" / "_report").mkdir(parents=True)
    (tmp_path / "b" / "_report" / "report.rst").write_text("Hierarchy : sr.sub_01.not_yet_run\n")
    assert list(stages(tmp_path)) == [("sub_01.restore", 12.5)]


def test_nothing_of_the_run_is_left_out():
    *named, others, whole = rows([("a", 60.0), ("b", 0.2), ("c", 0.3), ("d", 30.0)], 100.0)
    assert [row[0] for row in named] == ["a", "d"]
    assert float(others[1]) == pytest.approx(0.5)
    assert whole[1] == "100.0"
