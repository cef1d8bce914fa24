"""A database is made by one run, and the others find it whole."""

import threading

from bids_sr.bids.database import FILE, make_once


def test_of_several_runs_one_makes_it_and_the_others_find_it_whole(tmp_path):
    made, found = [], []

    def make(folder):
        made.append(folder)
        with (folder / FILE).open("w") as stream:
            stream.write("first half, ")
            stream.flush()
            assert not (tmp_path / "db" / FILE).exists()
            stream.write("second half")

    def run():
        make_once(tmp_path / "db", make)
        found.append((tmp_path / "db" / FILE).read_text())

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), found) == (1, ["first half, second half"] * 6)
    assert [file.name for file in (tmp_path / "db").iterdir()] == [FILE]


def test_what_a_killed_run_left_goes_and_other_files_stay(tmp_path):
    (tmp_path / ".unfinished-x").mkdir()
    (tmp_path / ".unfinished-x" / FILE).touch()
    (tmp_path / "mine").touch()
    make_once(tmp_path, lambda folder: (folder / FILE).touch())
    assert sorted(file.name for file in tmp_path.iterdir()) == [FILE, "mine"]


def test_one_that_is_there_is_taken_where_nothing_can_be_written(tmp_path):
    (tmp_path / FILE).touch()
    tmp_path.chmod(0o500)
    make_once(tmp_path, lambda folder: None)
    tmp_path.chmod(0o700)
