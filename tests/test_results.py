"""Numbers are read only from what is whole, and whatever is not is told with its reason."""

import json

import pytest

from bids_sr.bids.outputs import save_table
from bids_sr.errors import DamagedRecordError, DamagedTableError, FailedSeriesError
from bids_sr.results import Place, read_result, read_results
from tests.made_results import record_file, table_file, tensor_rows, write_result

NAME = "sub-01_dir-AP"


@pytest.fixture
def out(tmp_path):
    write_result(tmp_path / "out", NAME)
    return tmp_path / "out"


def change(file, **parts):
    """Change a record in place; a part that is None is taken out."""
    record = json.loads(file.read_text()) | parts
    file.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


def test_the_name_of_a_record_says_which_series_it_is_of(tmp_path):
    place = Place.of(tmp_path / "sub-01_ses-2_dir-AP_space-ACPC_res-1p5x1p5x2_desc-record.json")
    assert (place.subject, place.session, place.resolution) == ("01", "2", "1p5x1p5x2")
    assert place.series == "sub-01_ses-2_dir-AP_space-ACPC"
    assert place.label == "sub-01 ses-2 dir-AP space-ACPC res-1p5x1p5x2"


def test_cells_are_the_text_of_the_table(out):
    result = read_result(record_file(out, NAME), out)
    lines = [line.split("\t") for line in table_file(out, NAME).read_text().splitlines()]
    heading, rows = lines[0], lines[1:]
    assert len(rows) == len(result.cells) == 48
    for row in rows:
        named = dict(zip(heading, row, strict=True))
        key = (named.pop("map"), named.pop("tissue"), named.pop("method"))
        assert {column: result.text(key, column) for column in named} == named
    assert result.text(("FA", "nowhere", "sr"), "mean") == "n/a"


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_table_is_refused(out, keep):
    file = table_file(out, NAME)
    file.write_text(file.read_text()[: int(keep * len(file.read_text()))])
    with pytest.raises(DamagedTableError, match=r"tensor_stats\.tsv (is truncated|does not say)"):
        read_result(record_file(out, NAME), out)


def test_a_changed_number_is_refused(out):
    rows = tensor_rows(seed=sum(NAME.encode()))
    save_table(table_file(out, NAME), [rows[0] | {"mean": 0.1234}, *rows[1:]])
    with pytest.raises(DamagedTableError, match="does not say what its record says"):
        read_result(record_file(out, NAME), out)


def test_a_missing_table_is_told(out):
    table_file(out, NAME).unlink()
    with pytest.raises(DamagedTableError, match="is not there"):
        read_result(record_file(out, NAME), out)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"map\x00\tmean\n", b""])
def test_a_table_that_is_no_text_is_told(out, content):
    table_file(out, NAME).write_bytes(content)
    with pytest.raises(DamagedTableError):
        read_result(record_file(out, NAME), out)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema": 99}', "\0", '{"schema": 1}', "[" * 100_000])
def test_a_record_that_is_not_one_is_told(out, content):
    file = record_file(out, NAME)
    file.write_text(content)
    with pytest.raises(DamagedRecordError, match="its record cannot be used"):
        read_result(file, out)


@pytest.mark.parametrize(
    "parts",
    [
        {"model": "light"},
        {"warnings": 3},
        {"grids": {}},
        {"mask": {"volume_ml": "large"}},
        {"outputs": [1]},
        {"outputs": []},
        {"tensor_table": None},
        {"tensor_table": [{"map": "FA"}]},
        {"tensor_table": [{"map": "FA", "tissue": "WM", "method": "sr", "mean": "<script>"}]},
        {"registration": [1]},
        {"self_check": "yes"},
    ],
)
def test_a_record_with_other_content_is_told(out, parts):
    change(record_file(out, NAME), **parts)
    with pytest.raises(DamagedRecordError):
        read_result(record_file(out, NAME), out)


def test_every_half_written_record_is_told(out):
    """Whatever the place it breaks off at: records appear whole, but a disk may fill up or a copy break off."""
    text = record_file(out, NAME).read_text()
    for length in range(0, len(text) - 2, 997):
        record_file(out, NAME).write_text(text[:length])
        results = read_results(out)
        assert not results.series
        assert [problem.place.series for problem in results.problems] == [NAME]


def test_what_another_process_is_writing_is_not_seen(out):
    hidden = record_file(out, NAME).with_name(f".{NAME}_res-2_desc-record-0123456789ab.json")
    hidden.write_text('{"schema": 1, "status": "do')
    assert len(read_results(out).series) == 1
    assert not read_results(out).problems


def test_a_failed_series_gives_its_reason(out):
    error = {"node": "restore", "message": "out of\nmemory", "crash_file": "logs/crash-1.txt"}
    change(record_file(out, NAME), status="failed", error=error)
    with pytest.raises(FailedSeriesError, match=r"it failed in restore: out of memory \(details: logs/crash-1\.txt\)"):
        read_result(record_file(out, NAME), out)
    change(record_file(out, NAME), error={})
    with pytest.raises(FailedSeriesError, match="it failed: it left no message"):
        read_result(record_file(out, NAME), out)


def test_each_resolution_has_a_table_of_its_own(out):
    rows = tensor_rows(seed=99)
    write_result(out, NAME, "2", rows=rows)
    results = read_results(out)
    assert [result.place.resolution for result in results.series] == ["1", "2"]
    assert not results.problems
    means = [result.number(("FA", "WM", "sr"), "mean") for result in results.series]
    assert means[0] != means[1]
    table_file(out, NAME, "2").write_bytes(table_file(out, NAME).read_bytes())
    with pytest.raises(DamagedTableError, match="does not say what its record says"):
        read_result(record_file(out, NAME, "2"), out)


def test_files_outside_the_output_are_not_looked_at(out, tmp_path):
    file = record_file(out, NAME)
    (tmp_path / f"{NAME}_desc-tensor_stats.tsv").write_bytes(table_file(out, NAME).read_bytes())
    for name in (f"../{NAME}_desc-tensor_stats.tsv", str(tmp_path / f"{NAME}_desc-tensor_stats.tsv")):
        change(file, outputs=[name])
        with pytest.raises(DamagedRecordError, match="names no table"):
            read_result(file, out)


def test_lost_images_are_counted(out):
    next(out.rglob("*_dwi.nii.gz")).unlink()
    assert read_result(record_file(out, NAME), out).n_lost == 1


def test_subjects_come_in_natural_order_and_can_be_chosen(tmp_path):
    out = tmp_path / "out"
    for name in ("sub-10", "sub-9_ses-1", "sub-9_ses-2"):
        write_result(out, name)
    assert [one.place.series for one in read_results(out).series] == ["sub-9_ses-1", "sub-9_ses-2", "sub-10"]
    assert [one.place.series for one in read_results(out, ("9",), ("2",)).series] == ["sub-9_ses-2"]


def test_a_subject_of_which_only_the_report_is_left_is_told(out):
    (out / "sub-02.html").write_text("")
    (out / "sub-03" / "figures").mkdir(parents=True)
    results = read_results(out)
    assert sorted(problem.place.label for problem in results.problems) == ["sub-02", "sub-03"]
    # The dataset knows more: which series of the subject it was.
    results = results.with_missing([NAME, "sub-02_run-1", "sub-02_run-2"])
    assert [p.place.label for p in results.problems] == ["sub-03", "sub-02 run-1", "sub-02 run-2"]
