"""Runs at the same time, one after the other, and series of one run do each other no harm."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from bids_sr.records import SCHEMA
from tests.faults.conftest import SUBJECTS
from tests.faults.runs import Place, assert_same, differences, finish, run, start, wait_for

pytestmark = pytest.mark.faults


def test_four_processes_on_four_subjects(subjects, tmp_path):
    place, alone = (Place(subjects, tmp_path / name / "out", tmp_path / name / "work") for name in ("a", "b"))
    started = [start(place.words("--participant-label", label)) for label in SUBJECTS]
    assert [finish(process).code for process in started] == [0] * 4
    assert run(alone.words()).code == 0
    assert_same(place.out, alone.out)
    assert all((place.out / f"sub-{label}.html").is_file() for label in SUBJECTS)


@pytest.mark.parametrize("works", [1, 4], ids=["one work folder", "four work folders"])
def test_four_processes_on_one_subject(place, reference, tmp_path, works):
    places = [Place(place.dataset, place.out, tmp_path / f"work{number % works}") for number in range(4)]
    finished = [finish(process) for process in [start(one.words()) for one in places]]
    assert [one.code for one in finished] == [0] * 4, [one.text for one in finished]
    assert_same(place.out, reference.out)
    assert sum("restoring the series" in one.text for one in finished) == 1
    assert sum("already done" in one.text for one in finished) == 3


def test_two_models_at_once_do_not_mix(place, reference, other_reference):
    started = [start(place.words(model=model)) for model in ("cubic", "trilinear")]
    assert [finish(process).code for process in started] == [0, 0]
    told = json.loads(next(place.out.rglob("*desc-record.json")).read_text())["model"]["name"]
    assert_same(place.out, reference.out if told == "cubic" else other_reference.out)


def test_a_result_that_another_model_began_to_overwrite_is_not_taken_for_finished(place, reference):
    assert run(place.words()).code == 0
    process = start(place.words(model="trilinear"))
    wait_for(process, "saving the restored series")
    process.kill()
    finish(process)
    again = run(place.words())
    assert again.code == 0
    assert "already done" not in again.text
    assert_same(place.out, reference.out)


@pytest.mark.parametrize("first", ["cubic", "trilinear"])
def test_nothing_of_an_earlier_result_with_other_options_is_left(place, reference, other_reference, first):
    references = {"cubic": reference, "trilinear": other_reference}
    second = next(name for name in references if name != first)
    for model in (first, second):
        assert run(place.words(model=model)).code == 0
    assert_same(place.out, references[second].out)


def given_mask(folder, out):
    """A dataset that holds the mask of a result, less its upper half."""
    mask = nib.load(next(out.rglob("sub-01_ses-1_desc-brain_mask.nii.gz")))
    smaller = np.asarray(mask.dataobj).copy()
    smaller[..., smaller.shape[2] // 2 :] = 0
    file = folder / "sub-01/ses-1/dwi/sub-01_ses-1_desc-brain_mask.nii.gz"
    file.parent.mkdir(parents=True)
    nib.Nifti1Image(smaller, mask.affine).to_filename(file)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "Masks", "BIDSVersion": "1.10.0"}))
    return folder


def test_a_result_whose_files_another_resolution_replaced_from_other_input_is_made_again(place, reference, tmp_path):
    assert run(place.words()).code == 0
    whole = {file: file.read_bytes() for file in place.out.rglob("*.nii.gz") if "desc-departure" not in file.name}
    finer = place.words("--derivatives", f"m={given_mask(tmp_path / 'masks', place.out)}")
    finer[finer.index("--scale") + 1] = "1.5"
    overtaking = run(finer)
    assert overtaking.code == 0
    assert "made anew, from other input or options" in overtaking.text
    assert [file.name for file, content in whole.items() if file.read_bytes() != content]
    assert "may no longer be those" in (place.out / "sub-01.html").read_text()
    again = run(place.words())
    assert again.code == 0
    assert "done before, and restored again: a later run" in again.text
    assert [file.name for file, content in whole.items() if file.read_bytes() != content] == []
    assert "already done" in run(place.words()).text


def test_other_resolutions_from_the_same_input_leave_each_other_alone(place):
    for scale in ("2", "1.5", "2", "1.5"):
        words = place.words()
        words[words.index("--scale") + 1] = scale
        finished = run(words)
        assert finished.code == 0
        assert "made anew" not in finished.text
    assert "already done" in finished.text


TOO_LITTLE_MEMORY = """
    from bids_sr.workflows.plan import SeriesPlan
    SeriesPlan.self_check_gb = property(lambda plan: plan.config.memory_gb + 1)
"""


def test_a_self_check_left_out_for_memory_is_done_once_there_is_enough(place):
    words = place.words(model="trilinear")
    words[words.index("--scale") + 1] = "1.4"
    told = []
    for before in (TOO_LITTLE_MEMORY, TOO_LITTLE_MEMORY, "", ""):
        finished = run(words, before=before)
        assert finished.code == 0
        done = json.loads(next(place.out.rglob("*desc-record.json")).read_text())["self_check"]["done"]
        told.append((done, "already done" in finished.text, "left out for want of memory" in finished.text))
    assert told == [(False, False, False), (False, True, False), (True, False, True), (True, True, False)]


BROKEN_GUARD = """
    import bids_sr.interfaces.consistency as stage
    def fail(*_):
        raise ValueError("made for a test")
    stage.acquired_support = fail
"""


def test_a_check_that_broke_off_is_tried_once_more_and_no_oftener(place, reference):
    assert run(place.words(), before=BROKEN_GUARD).code == 0
    second = run(place.words(), before=BROKEN_GUARD)
    assert "restored again: a check broke off (departure from the scan) and is tried once more" in second.text
    third = run(place.words())
    assert "already done with the same input and options; a check broke off twice" in third.text
    next(place.out.rglob("*desc-record.json")).unlink()
    assert run(place.words()).code == 0
    assert_same(place.out, reference.out)


def test_work_of_another_model_is_not_reused(place, reference):
    assert run(place.words(model="trilinear")).code == 0
    shutil.rmtree(place.out)
    assert run(place.words()).code == 0
    assert_same(place.out, reference.out)


def test_work_of_another_version_is_not_reused(place, reference):
    other = "    import bids_sr\n    bids_sr.__version__ = '0.0.0'"
    assert run(place.words(), before=other).code == 0
    versions = {json.loads(file.read_text())["version"] for file in place.out.rglob("*desc-record.json")}
    assert versions == {"0.0.0"}
    spoilt = [file for file in place.work.rglob("*.nii") if file.is_file()]
    assert spoilt
    for file in spoilt:
        file.write_bytes(bytes(file.stat().st_size))
    again = run(place.words())
    assert again.code == 0
    assert "already done" not in again.text
    assert_same(place.out, reference.out)


def test_a_broken_series_leaves_the_others_right(dataset, reference, tmp_path):
    shutil.copytree(dataset, tmp_path / "raw")
    image = tmp_path / "raw/sub-01/ses-2/dwi/sub-01_ses-2_dwi.nii.gz"
    image.write_bytes(image.read_bytes()[:-400])
    place = Place(tmp_path / "raw", tmp_path / "out", tmp_path / "work")
    finished = run([*place.words()[:5], *place.words()[7:]])
    assert finished.code == 2
    assert "ses-2_dwi.nii.gz" in finished.text
    assert statuses(place) == {"1": "done", "2": "failed"}
    assert differences(reference.out, place.out, "ses-1") == []


CRASH = """
    from bids_sr.interfaces.figures import MakeFigures
    def crash(self, folder, real=MakeFigures._execute):
        if "ses-2" in self.inputs.stem:
            raise ZeroDivisionError("made for a test")
        return real(self, folder)
    MakeFigures._execute = crash
"""


def test_a_bug_in_one_series_leaves_the_others_right_and_is_told(place, reference):
    words = [*place.words()[:5], *place.words()[7:]]
    finished = run(words, before=CRASH)
    assert finished.code == 1
    assert "sub-01 ses-2  failed  [figures] ZeroDivisionError: made for a test" in finished.text
    assert statuses(place) == {"1": "done", "2": "failed"}
    assert differences(reference.out, place.out, "ses-1") == []
    assert list((place.out / "logs").rglob("crash-*.txt"))
    assert "made for a test" in (place.out / "sub-01.html").read_text()
    assert run(words).code == 0
    assert statuses(place) == {"1": "done", "2": "done"}


NO_REPORT = """
    import bids_sr.reports.html
    def fail(*_):
        raise ValueError("made for a test")
    bids_sr.reports.html.write_subject_report = fail
"""


@pytest.mark.parametrize("earlier", [False, True], ids=["first report", "report of an earlier run"])
def test_a_report_that_fails_is_told_and_written_by_the_next_run(place, earlier):
    if earlier:
        assert run(place.words(session="2")).code == 0
    finished = run(place.words(), before=NO_REPORT)
    assert finished.code == 1
    assert "the report could not be written" in finished.text
    assert "made for a test" in finished.text
    assert statuses(place)["1"] == "done"
    again = run(place.words())
    assert again.code == 0
    assert "already done" in again.text
    assert "ses-1" in (place.out / "sub-01.html").read_text()


def statuses(place):
    """What the records say, by session."""
    records = [json.loads(file.read_text()) for file in place.out.rglob("*desc-record.json")]
    assert {record["schema"] for record in records} == {SCHEMA}
    return {record["entities"]["ses"]: record["status"] for record in records}
