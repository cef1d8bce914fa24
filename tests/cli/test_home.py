"""Every command runs for a user whom the system does not know and who has no home, as in containers."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bids_sr.cli import demo, evaluate, train
from tests.made_results import write_result
from tests.skeleton import Skeleton


@pytest.fixture
def homeless(monkeypatch):
    """No HOME, and no entry for the user."""

    def nobody(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    yield
    os.environ.pop("HOME", None)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (demo.main, ["there"]),
        (evaluate.main, ["gone", "out", "--models", "cubic", "--scales", "2"]),
        (train.main, ["pack", "gone", "out.safetensors"]),
    ],
)
def test_a_home_is_lent_before_anything_is_imported_that_asks_for_one(homeless, tmp_path, monkeypatch, main, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("a file where a folder is to be made")
    assert main(words) == 2
    assert os.environ["HOME"] == tempfile.gettempdir()


def test_a_home_is_left_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert train.main(["pack", str(tmp_path / "gone"), str(tmp_path / "out.safetensors")]) == 2
    assert os.environ["HOME"] == str(tmp_path)


#: What a user without HOME, whom the system does not know, asks for.
NOBODY = """
import os, pwd, sys
def nobody(number):
    raise KeyError(number)
pwd.getpwuid = nobody
os.environ.pop("HOME", None)
from bids_sr.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["participant", "--scale", "2", "--model", "cubic", "--dry-run"],
        ["group"],
        ["participant", "--boilerplate-only"],
    ],
)
def test_what_sets_up_no_environment_of_its_own_needs_no_home(tmp_path, words):
    """In a process of its own: libraries ask for the home when they are first imported."""
    raw = Skeleton(tmp_path / "raw")
    raw.dwi("sub-01")
    write_result(tmp_path / "out", "sub-01")
    command = [sys.executable, "-c", NOBODY, str(raw.root), str(tmp_path / "out"), *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
