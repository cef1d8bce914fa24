"""The record says what was done; whether that has to be done again follows from it."""

import json

import pytest

from bids_sr.dwi.trust import BLANK_T1W, NO_T1W
from bids_sr.records import (
    OVERTAKEN,
    complete_record,
    failed_record,
    fingerprint,
    is_finished,
    overtake,
    read_record,
    reason_to_repeat,
    remove_replaced,
    stage_warnings,
    supersede,
    undone_check,
    write_record,
)

OPENING = {"schema": 1, "status": "failed", "fingerprint": "abc", "warnings": ["first"]}


def test_the_fingerprint_depends_on_content_options_and_weights(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    prints = [
        fingerprint([one, None], {"scale": 2}, "w"),
        fingerprint([other, None], {"scale": 2}, "w"),
        fingerprint([None, one], {"scale": 2}, "w"),
        fingerprint([one, None], {"scale": 3}, "w"),
        fingerprint([one, None], {"scale": 2}, "v"),
    ]
    assert len(set(prints)) == len(prints)
    copy = tmp_path / "copy"
    copy.write_bytes(b"1")
    assert fingerprint([copy, None], {"scale": 2}, "w") == prints[0]


def test_a_complete_record_holds_what_was_found_and_leaves_out_what_was_not():
    parts = {"tensor_table": [{"map": "FA"}], "truth_table": [], "mask": {"source": "given", "volume_ml": 1400.0}}
    record = complete_record(OPENING, parts, {"tensor": 1.26, "report": 2.0}, ["a"])
    assert record["status"] == "done"
    assert record["seconds"] == {"tensor": 1.3, "report": 2.0, "total": 3.3}
    assert record["warnings"] == ["first"]
    assert "truth_table" not in record
    assert record["outputs"] == ["a"]


@pytest.mark.parametrize(
    ("parts", "n_warnings"),
    [
        ({}, 0),
        ({"registration": {"agreement": 0.15, "rotation_degrees": 3.0, "translation_mm": 4.0}}, 0),
        ({"registration": {"agreement": 0.15, "rotation_degrees": 50.0, "translation_mm": 4.0}}, 1),
        ({"registration": {"agreement": 0.15, "rotation_degrees": 3.0, "translation_mm": 20.0}}, 1),
        ({"registration": {"agreement": 0.05, "rotation_degrees": 3.0, "translation_mm": 4.0}}, 1),
        ({"registration": {"agreement": 0.15, "contrast": 0.4, "rotation_degrees": 3.0, "translation_mm": 4.0}}, 1),
        ({"registration": {"agreement": float("nan"), "rotation_degrees": 3.0, "translation_mm": 4.0}}, 1),
        (
            {"registration": {"agreement": 0.15, "coverage": 0.99, "rotation_degrees": 3.0, "translation_mm": 4.0}},
            0,
        ),
        (
            {"registration": {"agreement": 0.15, "coverage": 0.9, "rotation_degrees": 3.0, "translation_mm": 4.0}},
            1,
        ),
        (
            {"registration": {"agreement": 0.05, "coverage": 0.5, "rotation_degrees": 3.0, "translation_mm": 4.0}},
            2,
        ),
        ({"mask": {"volume_ml": 1300.0}}, 0),
        ({"mask": {"volume_ml": 20.0}}, 1),
        ({"mask": {"volume_ml": 1300.0, "odd_volumes": [{"volume": 5, "b": 1000.0, "times": 10.0}] * 9}}, 1),
    ],
)
def test_implausible_results_are_warned_of(parts, n_warnings):
    assert len(stage_warnings(parts)) == n_warnings


def test_a_record_survives_the_disk(tmp_path):
    file = tmp_path / "figures" / "record.json"
    record = failed_record(OPENING, "No memory.", "restore", None)
    write_record(file, record)
    assert read_record(file) == record
    assert [path.name for path in file.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"schema": 0})])
def test_what_is_no_record_is_none(tmp_path, text):
    file = tmp_path / "record.json"
    assert read_record(file) is None
    file.write_text(text)
    assert read_record(file) is None


def test_a_series_is_finished_only_with_the_same_fingerprint_and_all_its_outputs(tmp_path):
    record = complete_record(OPENING, {}, {}, ["there.nii.gz"])
    assert not is_finished(record, "abc", tmp_path)
    (tmp_path / "there.nii.gz").touch()
    assert is_finished(record, "abc", tmp_path)
    assert not is_finished(record, "other", tmp_path)
    assert not is_finished({**record, "status": "failed"}, "abc", tmp_path)
    assert not is_finished(None, "abc", tmp_path)


@pytest.mark.parametrize(
    ("t1w", "n_warnings"),
    [
        ({}, 0),
        ({"used": True, "reason": ""}, 0),
        ({"used": False, "reason": NO_T1W}, 0),
        ({"used": False, "reason": "it shares little with the b0"}, 1),
        ({"used": False, "reason": BLANK_T1W}, 1),
    ],
)
def test_a_t1w_that_was_there_and_not_used_is_warned_of(t1w, n_warnings):
    assert len(stage_warnings({"t1w": t1w})) == n_warnings


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"done": True, "level": "no", "sentence": "It did not help."}, "It did not help."),
        (undone_check("Out of memory.", failed=True), "could not be done: Out of memory."),
        (undone_check("The field of view is too small."), None),
        ({"done": True, "level": "partly", "sentence": "In part."}, None),
    ],
)
def test_a_self_check_that_speaks_against_the_result_or_broke_off_is_warned_of(check, words):
    warnings = stage_warnings({"self_check": check})
    assert len(warnings) == (words is not None)
    assert all(words in warning for warning in warnings)


@pytest.mark.parametrize(("part", "words"), [("departure", "departs from"), ("t1w_effect", "T1w image changed")])
def test_a_guard_that_broke_off_is_warned_of(part, words):
    (warning,) = stage_warnings({part: undone_check("Out of memory.", failed=True)})
    assert words in warning
    assert "Out of memory. The results do not depend on it." in warning
    assert stage_warnings({part: {"done": True, "sentence": "All is well."}}) == []


def test_a_result_that_is_being_replaced_is_not_finished_and_its_files_are_known(tmp_path):
    file = tmp_path / "figures" / "sub-01_desc-record.json"
    assert supersede(file) == []
    assert not file.exists()
    (tmp_path / "a.nii.gz").touch()
    write_record(file, complete_record(OPENING, {}, {}, ["a.nii.gz"]))
    assert is_finished(read_record(file), "abc", tmp_path)
    for _ in range(2):
        assert supersede(file) == ["a.nii.gz"]
        assert not is_finished(read_record(file), "abc", tmp_path)
    assert "began to replace" in read_record(file)["error"]["message"]


def test_files_that_no_record_lists_any_more_go(tmp_path):
    out = tmp_path / "out"
    names = ["new.nii.gz", "new.json", "other.tsv", "old.nii.gz", "old.json", "old.tsv"]
    out.mkdir()
    for file in [*(out / name for name in names), tmp_path / "outside.tsv"]:
        file.touch()
    records = out / "figures"
    write_record(records / "sub-01_res-1_desc-record.json", complete_record(OPENING, {}, {}, ["new.nii.gz"]))
    write_record(records / "sub-01_res-2_desc-record.json", complete_record(OPENING, {}, {}, ["other.tsv"]))
    replaced = ["new.nii.gz", "other.tsv", "old.nii.gz", "old.tsv", "gone.tsv", "../outside.tsv"]
    remove_replaced(records, out, replaced)
    assert sorted(file.name for file in out.iterdir() if file.is_file()) == ["new.json", "new.nii.gz", "other.tsv"]
    assert (tmp_path / "outside.tsv").exists()


FAILED = undone_check("ValueError: made for a test", failed=True)


@pytest.mark.parametrize(
    ("parts", "can_check_itself", "words"),
    [
        ({}, False, ""),
        ({"self_check": {"done": True}, "departure": {"done": True}, "t1w_effect": {}}, True, ""),
        ({"self_check": undone_check("It needs 3 GB.")}, True, "want of memory"),
        ({"self_check": undone_check("It needs 3 GB.")}, False, ""),
        ({"self_check": FAILED}, True, "self-check) and is tried once more"),
        ({"self_check": {"done": True}, "departure": FAILED}, True, "departure from the scan"),
        ({"self_check": FAILED, "t1w_effect": FAILED}, True, "self-check, effect of the T1w"),
        ({"self_check": FAILED, "repeated": True}, True, ""),
        ({"self_check": {"done": True}, "overtaken": True, "repeated": True}, True, "acquired grid"),
    ],
)
def test_what_could_not_be_done_or_was_replaced_is_a_reason_to_repeat_a_series(parts, can_check_itself, words):
    reason = reason_to_repeat(complete_record(OPENING, parts, {}, []) | parts, can_check_itself=can_check_itself)
    assert words in reason
    assert bool(reason) == bool(words)


@pytest.mark.parametrize(
    ("shared", "is_overtaken"),
    [
        ({"series": "a", "t1w": "b"}, False),
        ({"series": "a"}, False),
        ({"series": "a", "t1w": "c"}, True),
        ({"series": "x", "t1w": "b"}, True),
    ],
)
def test_only_results_with_files_from_something_else_are_overtaken(tmp_path, shared, is_overtaken):
    own, same, other = (tmp_path / f"sub-01_{name}_desc-record.json" for name in ("res-1", "res-2", "dir-AP_res-2"))
    done = complete_record({**OPENING, "stem": "sub-01", "shared": {"series": "a", "t1w": "b"}}, {}, {}, [])
    write_record(own, done)
    write_record(same, done)
    write_record(other, {**done, "stem": "sub-01_dir-AP"})
    assert overtake(own, "sub-01", shared) == ([same.name] if is_overtaken else [])
    assert overtake(own, "sub-01", shared) == []
    assert read_record(own) == done
    assert "overtaken" not in read_record(other)
    told = read_record(same)
    assert (told.get("overtaken", False), told["status"]) == (is_overtaken, "done")
    assert told["warnings"] == ["first", *([OVERTAKEN] if is_overtaken else [])]


def test_a_result_of_an_earlier_version_which_kept_no_checksums_is_overtaken(tmp_path):
    file = tmp_path / "sub-01_res-2_desc-record.json"
    write_record(file, complete_record({**OPENING, "stem": "sub-01"}, {}, {}, []))
    assert overtake(tmp_path / "sub-01_res-1_desc-record.json", "sub-01", {"series": "a"}) == [file.name]
