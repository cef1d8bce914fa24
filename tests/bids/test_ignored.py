"""The lines of .bidsignore mean what they mean to git."""

from pathlib import PurePath

import pytest

from bids_sr.bids.ignored import IgnoredFiles

FILE = "sub-01/dwi/sub-01_acq-old_dwi.nii.gz"


@pytest.mark.parametrize(
    "line",
    [
        "*_acq-old_*",
        "sub-01_acq-old_dwi.nii.g?",
        "sub-01/dwi/*.nii.gz",
        "/sub-01/dwi/*",
        "sub-01",
        "sub-*/",
        "dwi/",
        "/sub-01/",
        "**/dwi/*",
        "**/*.nii.gz",
        "sub-01/**",
        "sub-01/**/*_dwi.nii.gz",
        "*.json\n*_dwi*",
        "!*\n*_dwi*",
        "  *_acq-old_*  ",
    ],
)
def test_what_fits_is_left_out(tmp_path, line):
    (tmp_path / ".bidsignore").write_text(line)
    assert PurePath(FILE) in IgnoredFiles.of(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# *_acq-old_*",
        "/dwi/",
        "/sub-01_acq-old_dwi.nii.gz",
        "sub-0",
        "*.nii",
        "dwi.nii.gz",
        "sub-01/*_dwi.nii.gz",
        "sub-01_acq-old_dwi.nii.gz/",
        "*_dwi*\n!sub-01/**",
        "acq.old",
    ],
)
def test_what_does_not_fit_stays(tmp_path, line):
    (tmp_path / ".bidsignore").write_text(line)
    assert PurePath(FILE) not in IgnoredFiles.of(tmp_path)


def test_without_a_file_nothing_is_left_out(tmp_path):
    assert PurePath(FILE) not in IgnoredFiles.of(tmp_path)
    (tmp_path / ".bidsignore").write_bytes(b"\xff\xfe*")
    assert PurePath(FILE) not in IgnoredFiles.of(tmp_path)
