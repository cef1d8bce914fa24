"""Permissions, links and other processes' doings: refused or survived, and nothing outside the output is touched."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bids_sr.cli.app import main
from tests.robustness.damage import Made, into_link, without_privileges
from tests.robustness.test_bad_inputs import DEFAULTS, contents

OPTIONS = ["--scale", "2", "--sloppy", "--no-self-check", *[word for pair in DEFAULTS.items() for word in pair]]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A dataset in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Made(tmp_path / "raw")


# Each must be refused in a line that names the file or the option.
CLOSED = {
    "series": ("series", 0o000, "sub-01_dwi.nii.gz cannot be opened (Permission denied)"),
    "b-values": ("bval", 0o000, "sub-01_dwi.bval cannot be opened (Permission denied)"),
    "T1w": ("anatomy", 0o000, "sub-01_T1w.nii.gz cannot be opened (Permission denied)"),
    "mask": ("brain", 0o000, "brain_mask.nii.gz cannot be opened (Permission denied)"),
    "sidecar": ("sidecar", 0o000, "sub-01_dwi.json cannot be opened (Permission denied)"),
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_file_that_may_not_be_read(place, caplog, capfd, name):
    attribute, mode, says = CLOSED[name]
    getattr(place, attribute).chmod(mode)
    with without_privileges():
        code = main(["raw", "out", "participant", *OPTIONS, "--dry-run"])
    said = "".join(capfd.readouterr()) + caplog.text
    assert code == 2, said
    assert says in said


@pytest.mark.parametrize("closed", ["raw", "raw/sub-01", "raw/sub-01/dwi"])
def test_a_folder_that_may_not_be_read(place, caplog, capfd, closed):
    Path(closed).chmod(0o000)
    try:
        with without_privileges():
            code = main(["raw", "out", "participant", *OPTIONS, "--dry-run"])
    finally:
        Path(closed).chmod(0o755)
    said = "".join(capfd.readouterr()) + caplog.text
    assert code == 2, said
    assert f"{closed} cannot be opened (Permission denied)" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="the system tells root that every folder can be written to")
@pytest.mark.parametrize(("closed", "option"), [("out", "OUTPUT_DIR"), ("work", "--work-dir")])
def test_a_folder_that_may_not_be_written(place, capfd, closed, option):
    Path(closed).mkdir(mode=0o555)
    with without_privileges():
        code = main(["raw", "out", "participant", *OPTIONS])
    said = "".join(capfd.readouterr())
    assert code == 2, said
    assert f"{option}: " in said
    assert "cannot be written to (no permission in" in said


# Through a process of its own: what a shell sees.
PROCESSES = {
    "bad option": ([], ["--scale", "9"], 2, "factors from 1 to 4"),
    "bad image": (["series"], ["--scale", "2"], 2, "sub-01_dwi.nii.gz cannot be read as a NIfTI image"),
    "bad b-values": (["bval"], ["--scale", "2", "--dry-run"], 2, "sub-01_dwi.bval cannot be read"),
    "out of memory": ([], ["--output-resolution", "0.02", "--mem", "1"], 137, "needs"),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_the_status_that_a_shell_sees(tmp_path, name):
    harmed, options, code, says = PROCESSES[name]
    made = Made(tmp_path / "raw")
    for file in harmed:
        getattr(made, file).write_bytes(b"not what it says")
    words = [word for pair in DEFAULTS.items() for word in pair]
    command = [sys.executable, "-m", "bids_sr", "raw", "out", "participant", *options, *words]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stderr
    assert says in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr


# Links


def test_a_dataset_of_links_out_of_it_is_read(tmp_path, monkeypatch, capfd):
    """As DataLad's and many a lab's are; what is linked is only ever read."""
    monkeypatch.chdir(tmp_path)
    made = Made(tmp_path / "raw")
    store = tmp_path / "store"
    store.mkdir()
    for file in (made.series, made.bval, made.bvec, made.anatomy):
        target = store / file.name
        file.rename(target)
        file.symlink_to(target)
    before = contents(store)
    assert main(["raw", "out", "participant", *OPTIONS, "--dry-run"]) == 0
    assert contents(store) == before
    assert "sub-01" in capfd.readouterr().out


def test_a_link_in_the_output_is_replaced_and_not_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Made(tmp_path / "raw").mixed()
    precious = tmp_path / "precious.txt"
    mine = '{"Name": "mine", "GeneratedBy": [{"Name": "bids_sr"}]}'
    precious.write_text(mine)
    place = tmp_path / "out" / "sub-01" / "dwi" / "sub-01_res-1_desc-sr_dwi.json"
    place.parent.mkdir(parents=True)
    place.symlink_to(precious)
    (tmp_path / "out" / "dataset_description.json").symlink_to(precious)
    assert main(["raw", "out", "participant", *OPTIONS, "--no-t1w"]) == 0
    assert precious.read_text() == mine
    assert not place.is_symlink()
    assert not (tmp_path / "out" / "dataset_description.json").is_symlink()


def test_metadata_are_never_taken_for_paths(tmp_path, monkeypatch):
    """Fields that name files, and tables that name sessions, lead nowhere: no file outside is read or written."""
    monkeypatch.chdir(tmp_path)
    made = Made(tmp_path / "raw")
    made.mixed()
    secret = tmp_path / "secret.json"
    secret.write_text('{"EchoTime": 99}')
    hostile = ["../../secret.json", str(secret), "bids::../secret.json", "file:" + "///etc/passwd", "$(touch owned)"]
    names = ("IntendedFor", "Sources", "B0FieldSource", "RawSources", "SpatialReference", "AssociatedEmptyRoom")
    made.json("sub-01/dwi/sub-01_dwi.json", {name: hostile for name in names} | {"../../owned.json": 1})
    rows = "\n".join(f"{name}\t2020-01-01T00:00:00" for name in hostile)
    made.text("sub-01/sub-01_sessions.tsv", f"session_id\tacq_time\n{rows}\n")
    made.text("participants.tsv", "participant_id\tage\n../../sub-01\t=cmd()\n")
    before = {path for path in contents(tmp_path) if not path.startswith(("out", "work"))}
    assert main(["raw", "out", "participant", "group", *OPTIONS, "--no-t1w"]) == 0
    assert {path for path in contents(tmp_path) if not path.startswith(("out", "work"))} == before
    texts = [
        path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.suffix in (".json", ".html")
    ]
    assert not any('"EchoTime": 99' in text for text in texts)


def test_a_link_loop_in_a_dataset_ends(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    made = Made(tmp_path / "raw")
    (made.root / "sub-01" / "loop").symlink_to(made.root)
    (made.root / "sub-02").symlink_to(made.root)
    assert main(["raw", "out", "participant", *OPTIONS, "--dry-run", "--participant-label", "01"]) == 0
    assert capfd.readouterr().out.count("sub-01 ") == 1


def test_a_fifo_does_not_hang(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    made = Made(tmp_path / "raw")
    made.bval.unlink()
    os.mkfifo(made.bval)
    assert main(["raw", "out", "participant", *OPTIONS, "--dry-run"]) == 2
    assert "sub-01_dwi.bval is not a file" in capfd.readouterr().out


def test_outputs_are_as_open_as_the_users_mask_says_and_no_temporary_file_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Made(tmp_path / "raw")
    made.mixed()
    into_link(made.anatomy, "gone")
    before = os.umask(0o027)
    try:
        assert main(["raw", "out", "participant", *OPTIONS, "--no-t1w"]) == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in files if path.name.startswith(".tmp") or path.suffix in (".partial", ".tmp")]
    assert not [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o007]
