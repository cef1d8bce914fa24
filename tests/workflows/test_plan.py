"""What is decided before anything runs."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from bids_sr.errors import NotFourDimensionalError, OutOfMemoryError, ScaleTooLargeError, UnreadableImageError
from bids_sr.models.registry import CUBIC
from bids_sr.workflows.plan import opening_record, shown_gb


def test_processors_folders_and_verbosity_do_not_change_the_fingerprint(make_plan, tmp_path):
    same = [{}, {"nprocs": 4}, {"verbosity": 2}, {"work_dir": tmp_path / "w"}, {"run_id": "other"}]
    assert len({make_plan(options=options).fingerprint for options in same}) == 1


@pytest.mark.parametrize("options", [{"scale": (1.5, 1.5, 1.5)}, {"b0_threshold": 20.0}, {"random_seed": 1}])
def test_options_that_change_the_result_change_the_fingerprint(make_plan, options):
    assert make_plan(options=options).fingerprint != make_plan().fingerprint


def test_other_weights_change_the_fingerprint(make_plan):
    card = dataclasses.replace(CUBIC, weights_sha256="abc")
    assert make_plan(card).fingerprint != make_plan().fingerprint


def test_other_content_changes_the_fingerprint_and_a_touch_does_not(make_plan, series):
    before = make_plan().fingerprint
    series.bval.touch()
    assert make_plan().fingerprint == before
    series.bval.write_text("0 1000 1000 1000 1000 1000 1000 999\n")
    assert make_plan().fingerprint != before


@pytest.mark.parametrize("options", [{"scale": (1.5,) * 3}, {"save_tensor": True}, {"model": "trilinear"}])
def test_the_files_on_the_acquired_grid_are_the_same_at_all_resolutions(make_plan, options):
    assert make_plan(options=options).shared == make_plan().shared


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"b0_threshold": 20.0}, {"series", "t1w"}),
        ({"random_seed": 1}, {"series", "t1w"}),
        ({"sloppy": True}, {"t1w"}),
    ],
)
def test_options_that_decide_the_files_on_the_acquired_grid_are_known(make_plan, options, changed):
    before, after = make_plan().shared, make_plan(options=options).shared
    assert {name for name in before if before[name] != after[name]} == changed


def test_other_inputs_make_other_files_on_the_acquired_grid(make_plan, series):
    before = make_plan().shared
    without = make_plan(t1w=None).shared
    assert without == {"series": before["series"]}
    mask = series.dwi.with_name("sub-01_desc-brain_mask.nii.gz")
    nib.Nifti1Image(np.ones((6, 5, 4), np.uint8), nib.load(series.dwi).affine).to_filename(mask)
    assert make_plan(mask=mask).shared["series"] != before["series"]
    assert opening_record(make_plan(), "")["shared"] == before
    nib.Nifti1Image(np.full((5, 5, 5), 2, np.int16), np.eye(4)).to_filename(series.t1w)
    after = make_plan().shared
    assert (after["series"], after["t1w"] == before["t1w"]) == (before["series"], False)


@pytest.mark.parametrize(
    ("needed", "available"), [(0.61, 0.6), (0.649, 0.64), (12.34, 12.3), (1.0001, 1.0), (3.0, 1.0)]
)
def test_too_little_memory_reads_as_less_and_what_is_asked_for_is_enough(needed, available):
    shown = shown_gb(needed, available)
    assert f"{shown[0]:.1f}" != f"{shown[1]:.1f}"
    assert shown[0] >= needed
    assert shown[1] <= available
    assert max(shown[0] - needed, available - shown[1]) < 0.1


def test_the_record_names_inputs_by_uri_and_both_grids(make_plan):
    record = opening_record(make_plan(), "2026-01-01T00:00:00+00:00")
    assert record["inputs"]["dwi"] == "bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"
    assert record["inputs"]["mask"] is None
    assert record["grids"]["acquired"] == {"shape": [6, 5, 4], "voxel_sizes": [2.0, 2.0, 3.0]}
    assert record["grids"]["target"] == {"shape": [12, 10, 8], "voxel_sizes": [1.0, 1.0, 1.5], "scale": [2.0] * 3}
    assert record["warnings"] == []


@pytest.mark.parametrize(
    ("parts", "options", "words"),
    [
        ({"t1w": None}, {}, "No T1w"),
        ({"t1w": None}, {"use_t1w": False}, "--no-t1w"),
        ({"t1w_note": "session 2 of the same subject"}, {}, "session 2"),
    ],
)
def test_what_is_special_about_the_t1w_is_warned_of(make_plan, parts, options, words):
    warnings = opening_record(make_plan(options=options, **parts), "")["warnings"]
    assert len(warnings) == 1
    assert words in warnings[0]


@pytest.mark.parametrize("note", ["same session; one of 2 images", "of the subject, without a session"])
def test_a_t1w_that_is_the_only_one_for_the_session_is_not_warned_of(make_plan, note):
    assert opening_record(make_plan(t1w_note=note), "")["warnings"] == []


GUIDED = dataclasses.replace(CUBIC, name="guided", inputs=("volume", "t1w"))


@pytest.mark.parametrize(("parts", "options"), [({"t1w": None}, {}), ({"t1w": None}, {"use_t1w": False})])
def test_a_model_that_uses_the_t1w_and_gets_none_is_warned_of_in_the_same_line(make_plan, parts, options):
    plan = make_plan(GUIDED, options=options, **parts)
    assert not plan.is_guided
    (warning,) = opening_record(plan, "")["warnings"]
    assert "the model guided is given zeros in place of the T1w" in warning
    (other,) = opening_record(make_plan(options=options, **parts), "")["warnings"]
    assert "zeros" not in other


def test_a_model_is_guided_where_it_uses_the_t1w_and_there_is_one(make_plan):
    assert make_plan(GUIDED).is_guided
    assert opening_record(make_plan(GUIDED), "")["model"]["uses_t1w"] is True
    assert not make_plan().is_guided


def test_the_same_weights_with_other_inputs_are_another_model(make_plan):
    cards = [
        CUBIC,
        dataclasses.replace(CUBIC, inputs=("volume", "b0")),
        dataclasses.replace(CUBIC, normalization="b0"),
        dataclasses.replace(CUBIC, arguments={"scale": 2.0}),
    ]
    assert len({make_plan(card).fingerprint for card in cards}) == len(cards)


def test_another_t1w_is_another_result(make_plan, series):
    before = make_plan(GUIDED).fingerprint
    nib.Nifti1Image(np.full((5, 5, 5), 2, np.int16), np.eye(4)).to_filename(series.t1w)
    assert make_plan(GUIDED).fingerprint != before
    assert make_plan(GUIDED, t1w=None).fingerprint != before


def test_a_large_t1w_takes_memory_only_where_the_model_is_shown_it(make_plan):
    large = dataclasses.replace(make_plan(GUIDED), t1w_shape=(160, 460, 512))
    assert large.restore_gb("guided") - make_plan(GUIDED).restore_gb("guided") == pytest.approx(0.14, abs=0.01)
    assert large.restore_gb("cubic") == make_plan(GUIDED).restore_gb("cubic")


def test_a_scale_that_the_model_was_not_made_for_is_refused(make_plan):
    card = dataclasses.replace(CUBIC, name="trained", scale_range=(1.0, 1.5))
    with pytest.raises(ScaleTooLargeError, match=r"at most 1\.5 times"):
        make_plan(card)


def test_a_series_that_does_not_fit_into_memory_is_refused_before_it_starts(make_plan):
    with pytest.raises(OutOfMemoryError, match="sub-01 needs"):
        make_plan(options={"memory_gb": 0.01})


def test_a_broken_header_is_the_users_error(make_plan, series):
    series.dwi.write_bytes(b"not an image")
    with pytest.raises(UnreadableImageError, match="sub-01_dwi"):
        make_plan()


def test_a_three_dimensional_series_is_the_users_error(make_plan, series):
    nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)).to_filename(series.dwi)
    with pytest.raises(NotFourDimensionalError):
        make_plan()
