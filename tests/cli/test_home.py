"""Every command runs for a user whom the system does not know and who has no home, as in containers."""

import os
import tempfile

import pytest

from bids_sr.cli import demo, evaluate, train


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
