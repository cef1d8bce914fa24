"""The group level on an output folder as it may be found: with gaps, while others write, and empty."""

import csv
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bids_sr.cli.app import main
from bids_sr.evaluation.group import column_name
from tests.made_results import raw_series, record_file, table_file, tensor_rows, write_result

NAMES = [f"sub-{number:02d}" for number in range(1, 6)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A raw dataset of five subjects, and the results of all of them."""
    monkeypatch.chdir(tmp_path)
    raw_series(tmp_path / "raw", *NAMES)
    for name in NAMES:
        write_result(tmp_path / "out", name)
    return tmp_path


def table(out):
    with (out / "group_tensor.tsv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def group(*words):
    return main(["raw", "out", "group", *words])


def test_the_numbers_are_the_text_of_the_subjects_files(folder):
    assert group() == 0
    rows = table(folder / "out")
    assert [row["participant_id"] for row in rows] == NAMES
    checked = 0
    for row in rows:
        with table_file(folder / "out", row["series"]).open(newline="") as stream:
            for line in csv.DictReader(stream, delimiter="\t"):
                key = (line.pop("map"), line.pop("tissue"), line.pop("method"))
                for column, text in line.items():
                    name = column_name(key, column)
                    if name in row:
                        assert row[name] == text
                        checked += 1
    assert checked == len(rows) * (4 * 4 * 3 * 3 + 4 * 4 * 2 * 3 + 2)


def test_the_dictionary_describes_each_column_and_nothing_else(folder):
    group()
    described = json.loads((folder / "out/group_tensor.json").read_text())
    assert list(described) == list(table(folder / "out")[0])
    assert all(entry["Description"].endswith(".") for entry in described.values())


def test_gaps_are_told_and_change_nothing_else(folder, caplog):
    out = folder / "out"
    whole = {row["participant_id"]: row for row in (group(), table(out))[1]}
    for file in (out / "sub-01").rglob("*"):
        if file.is_file():
            file.unlink()
    (out / "sub-01.html").unlink()
    text = table_file(out, "sub-02").read_text()
    table_file(out, "sub-02").write_text(text[: len(text) // 2])
    record_file(out, "sub-03").write_text('{"schema": 1, "status": "do')
    write_result(out, "sub-04", status="failed", error={"node": "restore", "message": "no signal"})
    caplog.clear()
    assert group() == 0
    assert table(out) == [whole["sub-05"]]
    told = {line.split(":")[0]: line for line in caplog.messages if "not in the table" in line}
    assert "has no record" in told["sub-01"]
    assert "sub-02_res-1_desc-tensor_stats.tsv is truncated" in told["sub-02 res-1"]
    assert "half written" in told["sub-03 res-1"]
    assert "it failed in restore: no signal" in told["sub-04 res-1"]
    page = (out / "group_tensor.html").read_text()
    without = page.split('id="without"')[1].split("</section>")[0]
    assert all(line.split("not in the table: ")[1] in without for line in told.values())
    assert "1 of 5 series are in the table" in page


def test_nothing_whole_makes_a_page_and_status_1(folder):
    for name in NAMES:
        record_file(folder / "out", name).write_text("{")
    assert group() == 1
    assert table(folder / "out") == []
    assert "No series has numbers" in (folder / "out/group_tensor.html").read_text()


@pytest.mark.parametrize(
    "prepare", [lambda out: None, lambda out: out.mkdir(), lambda out: (out / "sub-01").mkdir(parents=True)]
)
def test_an_output_without_subjects_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, prepare):
    monkeypatch.chdir(tmp_path)
    raw_series(tmp_path / "raw", "sub-01")
    prepare(tmp_path / "out")
    assert group() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "out holds no records of series" in error and "participant level" in error
    assert not (tmp_path / "out" / "group_tensor.tsv").exists()


def test_subjects_can_be_chosen_and_the_page_says_so(folder):
    assert group("--participant-label", "02", "sub-04") == 0
    assert [row["participant_id"] for row in table(folder / "out")] == ["sub-02", "sub-04"]
    assert "Only series of sub-02, sub-04 were gathered" in (folder / "out/group_tensor.html").read_text()


def test_a_label_that_is_nowhere_is_status_2(folder, capsys):
    assert group("--participant-label", "77") == 2
    assert "no records of series of sub-77" in capsys.readouterr().err


def test_a_dataset_that_cannot_be_read_any_more_does_not_matter(folder, caplog):
    """The raw data may be on tape by then; only what is missing cannot be told."""
    (folder / "raw/dataset_description.json").unlink()
    assert group() == 0
    assert len(table(folder / "out")) == 5
    assert "could not be told" in caplog.text
    assert "could not be told" in (folder / "out/group_tensor.html").read_text()


def test_references_whose_gradients_were_dropped_are_not_missed(folder, caplog):
    """A reference of b0 volumes has no record, and without its b-values looks like any other series."""
    raw_series(folder / "raw", "sub-01_dir-PA")
    (folder / "raw/sub-01/dwi/sub-01_dir-PA_dwi.bval").symlink_to("/nowhere/annex/key")
    raw_series(folder / "raw", "sub-06")
    assert group() == 0
    page = (folder / "out/group_tensor.html").read_text()
    for text in (page, caplog.text):
        assert "Whether 1 series without a record are missing here could not be told" in text
        assert "left out: sub-01 dir-PA." in text
    assert next(line for line in caplog.messages if "not in the table" in line).startswith("sub-06:")
    assert "5 of 6 series are in the table" in page


def test_series_whose_gradients_were_dropped_after_the_run_need_no_word(folder, caplog):
    raw_series(folder / "raw", "sub-01_dir-PA")
    write_result(folder / "out", "sub-01_dir-PA")
    for name in ("sub-01", "sub-01_dir-PA"):
        (folder / f"raw/sub-01/dwi/{name}_dwi.bval").symlink_to("/nowhere/annex/key")
    assert group() == 0
    assert "could not be told" not in caplog.text


def test_two_sessions_are_two_rows(folder):
    raw_series(folder / "raw", "sub-06_ses-1", "sub-06_ses-2")
    write_result(folder / "out", "sub-06_ses-1")
    write_result(folder / "out", "sub-06_ses-2")
    group()
    found = [(row["participant_id"], row["session_id"]) for row in table(folder / "out")]
    assert found[-2:] == [("sub-06", "ses-1"), ("sub-06", "ses-2")] and found[0] == ("sub-01", "n/a")


def test_metadata_with_markup_and_other_scripts_stays_text(folder):
    evil = "<script>alert('Ана 被験者')</script>"
    write_result(folder / "out", "sub-01", warnings=[evil], model={"name": evil}, version=evil, started=evil)
    write_result(folder / "out", "sub-02", status="failed", error={"node": evil, "message": evil})
    assert group() == 0
    page = (folder / "out/group_tensor.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(&#39;Ана 被験者&#39;)&lt;/script&gt;") >= 5
    assert table(folder / "out")[0]["model"] == evil


def test_a_second_run_writes_the_same_bytes_and_nothing_else(folder):
    group()
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    group()
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    made = {file.name for file in (folder / "out").glob("group*")}
    assert made == {"group_tensor.tsv", "group_tensor.json", "group_tensor.html"}
    assert not (folder / "work").exists()


def test_two_runs_at_once_while_a_third_process_writes(folder):
    """Records and tables change under the runs: what they write is whole, and what they do not read is told."""
    out, stop = folder / "out", threading.Event()

    def rewrite():
        seed = 0
        while not stop.is_set():
            seed += 1
            write_result(out, "sub-03", rows=tensor_rows(seed=seed))

    writer = threading.Thread(target=rewrite)
    writer.start()
    command = [sys.executable, "-m", "bids_sr", "raw", "out", "group"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    try:
        runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
        ended = [(run.wait(120), run.communicate()[1]) for run in runs]
    finally:
        stop.set()
        writer.join()
    assert [code for code, _ in ended] == [0, 0]
    assert all(error.splitlines()[-1].endswith("group_tensor.html") for _, error in ended)
    rows = table(out)
    others = [row["participant_id"] for row in rows if row["participant_id"] != "sub-03"]
    assert others == ["sub-01", "sub-02", "sub-04", "sub-05"]
    assert all(len(row) == len(rows[0]) and None not in row.values() for row in rows)
    assert "</html>" in (out / "group_tensor.html").read_text()
    assert not list(out.glob(".group*"))


def test_the_group_level_imports_nothing_heavy():
    """It runs on login nodes; and the participant level must set its environment before nipype is imported."""
    heavy = ("bids", "dipy", "matplotlib", "nibabel", "nipype", "pandas", "scipy", "torch")
    code = f"import sys, bids_sr.workflows.group; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


# Together with the participant level


@pytest.mark.parametrize(
    ("participants", "expected"), [(0, 0), (1, 1), (137, 137)], ids=["done", "failed", "out of memory"]
)
def test_both_levels_in_turn(folder, monkeypatch, participants, expected):
    monkeypatch.setattr("bids_sr.workflows.engine.run_participant_level", lambda config: participants)
    assert main(["raw", "out", "participant", "group", "--scale", "2"]) == expected
    assert len(table(folder / "out")) == 5


@pytest.mark.parametrize(("code", "options"), [(130, []), (0, ["--boilerplate-only"])])
def test_the_group_level_does_not_follow(folder, monkeypatch, code, options):
    monkeypatch.setattr("bids_sr.workflows.engine.run_participant_level", lambda config: code)
    assert main(["raw", "out", "participant", "group", "--scale", "2", *options]) == code
    assert not (folder / "out/group_tensor.tsv").exists()


def test_participants_that_all_failed_before_a_record_keep_their_status(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    raw_series(tmp_path / "raw", "sub-01")
    monkeypatch.setattr("bids_sr.workflows.engine.run_participant_level", lambda config: 137)
    assert main(["raw", "out", "participant", "group", "--scale", "2"]) == 137
    assert "no records of series" in caplog.text
