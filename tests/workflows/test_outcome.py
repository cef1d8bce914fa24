"""One place computes the exit status."""

import pytest

from bids_sr.errors import NoB0Error
from bids_sr.workflows.outcome import Outcome, exit_code, failed_before, summary


def outcomes(*codes):
    return [Outcome(f"sub-{number}", "failed" if code else "done", exit_code=code) for number, code in enumerate(codes)]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 2], 2),
        ([2, 2], 2),
        ([1, 0], 1),
        ([1, 2], 1),
        ([2, 137], 137),
        ([1, 137, 0], 137),
    ],
)
def test_exit_code(codes, expected):
    assert exit_code(outcomes(*codes)) == expected


def test_a_series_that_could_not_start_says_why():
    outcome = failed_before("sub-01", NoB0Error(dwi="sub-01_dwi", threshold=50.0, lowest=100.0))
    assert outcome.exit_code == 2
    assert "b0" in outcome.message


def test_the_summary_has_a_line_per_series():
    text = summary([Outcome("sub-01", "done"), Outcome("sub-02 ses-1", "failed", "No memory.", 137, "restore")])
    lines = text.splitlines()
    assert lines[1] == "  sub-01        done"
    assert lines[2] == "  sub-02 ses-1  failed  [restore] No memory."
