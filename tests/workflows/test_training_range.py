"""A scan unlike those that a model was trained on is marked; one like them is not."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_sr.models.registry import CUBIC, read_card
from bids_sr.workflows.derivatives import saved_groups
from bids_sr.workflows.plan import opening_record
from bids_sr.workflows.training_range import outside_training

TRAINING = {"range": {"bvals": [900, 2500], "voxel_sizes": [1.0, 2.5]}, "patches": {"scale_range": [1.2, 4.0]}}
LIKE = {"bvals": [1000.0, 2000.0], "voxel_sizes": [1.25] * 3, "scale": [2.0] * 3}


@pytest.mark.parametrize(
    "scan",
    [
        {},
        {"bvals": [811.0, 2749.0]},
        {"bvals": []},
        {"voxel_sizes": [0.981, 1.0, 2.549]},
        {"scale": [1.0, 1.0, 2.0]},
        {"scale": [1.18, 1.2, 4.07]},
        {"scale": [1.0, 1.0, 1.0]},
    ],
)
def test_what_it_knows_is_not_marked(scan):
    assert outside_training("m", TRAINING, **(LIKE | scan)) == []


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        ({"bvals": [1000.0, 3000.0]}, "b = 3000 s/mm2 (trained on 900 to 2500)"),
        ({"bvals": [300.0, 704.0, 696.0, 3000.0]}, "b = 300, 700, 3000 s/mm2"),
        ({"bvals": [800.0]}, "b = 800"),
        ({"bvals": [2760.0]}, "b = 2760"),
        ({"voxel_sizes": [0.7, 0.7, 2.0]}, "voxels of 0.7 mm (trained on 1 to 2.5)"),
        ({"voxel_sizes": [1.0, 1.0, 2.6]}, "voxels of 2.6 mm"),
        ({"voxel_sizes": [1.0, 1.0, 0.97]}, "voxels of 0.97 mm"),
        ({"scale": [1.1, 1.1, 2.0]}, "a magnification of 1.1 (trained on 1.2 to 4)"),
        ({"scale": [1.0, 1.0, 4.2]}, "a magnification of 4.2"),
    ],
)
def test_what_it_does_not_know_is_marked(scan, words):
    (sentence,) = outside_training("m", TRAINING, **(LIKE | scan))
    assert sentence.startswith("Outside of what the model m was trained on: ")
    assert words in sentence


def test_everything_that_is_outside_stands_in_one_sentence():
    (sentence,) = outside_training("m", TRAINING, [5000.0], [0.5] * 3, [5.0] * 3)
    assert all(words in sentence for words in ("b = 5000", "voxels of 0.5", "magnification of 5"))


@pytest.mark.parametrize("training", [{}, {"range": {}}, {"patches": {}}])
def test_a_card_that_tells_nothing_marks_nothing(training):
    assert outside_training("m", training, [5000.0], [0.1] * 3, [9.0] * 3) == []


@pytest.mark.parametrize("name", ["default", "light"])
def test_the_cards_of_the_models_that_ship_tell_their_range(name):
    training = read_card(name).training
    low, high = training["range"]["bvals"]
    assert 0 < low < 1000 < high
    low, high = training["range"]["voxel_sizes"]
    assert 0 < low < 2 < high
    assert len(training["patches"]["scale_range"]) == 2


def test_log_record_sidecar_and_report_are_given_the_mark(make_plan, series):
    from bids_sr.reports.html import render_subject_report

    card = read_card("light")
    (series.bval).write_text("0 " + "9000 " * 7)
    plan = make_plan(card)
    record = opening_record(plan, "")
    (mark,) = [warning for warning in record["warnings"] if "was trained on" in warning]
    assert "b = 9000" in mark
    assert "voxels of 1, 1.5 mm" in mark
    image = next(group for group in saved_groups(plan) if group.name == "sr").derivatives[0]
    assert mark in image.sidecar["Warnings"]
    page = render_subject_report("01", [json.loads(json.dumps(record))], plan.layout.figures(series))
    assert "b = 9000 s/mm2 (trained on 900 to 2500)" in page


def test_sloppy_is_marked_where_it_makes_the_result_worse(make_plan):
    def warnings(**parts):
        return opening_record(make_plan(CUBIC, options={"sloppy": True}, **parts), "")["warnings"]

    (mark,) = warnings()
    assert "--sloppy" in mark
    assert not any("--sloppy" in warning for warning in warnings(t1w=None))


def test_a_coarse_scan_is_known_by_the_voxels_asked_for(make_plan, series):
    data = np.full((6, 5, 4, 8), 100, np.int16)
    nib.Nifti1Image(data, np.diag([4.0, 4.0, 4.0, 1.0])).to_filename(series.dwi)
    assert not any("voxels of" in warning for warning in opening_record(make_plan(read_card("light")), "")["warnings"])
