"""`bids-sr-demo` says what is wrong in one line and ends with the code for it."""

import subprocess
import sys

import pytest

from bids_sr.cli.demo import main


def test_a_dataset_is_made_and_named(tmp_path, capsys):
    out = tmp_path / "new" / "head"
    assert main([str(out), "--small", "--seed", "2", "--snr", "30"]) == 0
    assert str(out) in capsys.readouterr().out
    assert (out / "sub-01" / "dwi" / "sub-01_dwi.nii.gz").is_file()


def test_a_place_that_holds_something_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("three years of work")
    assert main([str(tmp_path), "--small"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "not an empty folder" in message
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


def test_without_nilearn_the_command_that_installs_it_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    assert main([str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "pip install 'bids_sr[demo]'" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["--snr", "0"], ["--snr", "inf"], ["--snr", "loud"], ["--seed", "-1"], ["--seed", "x"]]
)
def test_impossible_numbers_are_refused(tmp_path, arguments):
    with pytest.raises(SystemExit) as ending:
        main([str(tmp_path / "out"), *arguments])
    assert ending.value.code == 2


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys, bids_sr.cli.demo; print([m for m in ('numpy', 'dipy', 'nibabel', 'nilearn') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
