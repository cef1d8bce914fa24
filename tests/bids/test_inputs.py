"""The files of a series are those that the BIDS specification says, whatever the layout of the dataset."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.bids.inputs import (
    ENTITY_ORDER,
    find_series,
    join_entities,
    parse_entities,
    scan_series,
    series_names,
    sort_entities,
    subject_labels,
)
from bids_sr.config import Config
from bids_sr.errors import (
    AmbiguousFileError,
    BadFilterError,
    InvalidNameError,
    MissingGradientsError,
    NoDwiError,
    NoSuchSessionError,
    NoSuchSubjectError,
    NotBidsError,
    SameOutputError,
    StaleDatabaseError,
    UnavailableFileError,
    UnreadableSidecarError,
    UnusableT1wError,
)
from tests.skeleton import Skeleton, qsiprep

REAL = Path(os.environ.get("BIDS_SR_TEST_DATA", Path(__file__).parents[2] / "../shared/data/open-dmri"))


def configure(root, **options):
    return Config(root.resolve(), root.parent / "out", root.parent / "work", scale=(2.0, 2.0, 2.0), **options)


def find(skeleton, **options):
    return find_series(configure(skeleton.root, **options))


@pytest.fixture
def raw(tmp_path):
    return Skeleton(tmp_path / "raw")


# Names


@given(st.dictionaries(st.sampled_from(ENTITY_ORDER), st.text("aZ09", min_size=1, max_size=6), min_size=1))
def test_entities_survive_a_file_name(entities):
    ordered = sort_entities(entities)
    assert parse_entities(Path(f"/d/{join_entities(ordered)}_dwi.nii.gz")) == ordered
    assert list(ordered) == [name for name in ENTITY_ORDER if name in entities]


def test_stem_and_label_leave_the_description_out(tmp_path):
    (series,) = find(qsiprep(tmp_path / "qsiprep", session="1"))
    assert series.stem == "sub-01_ses-1_space-ACPC"
    assert series.label == "sub-01 ses-1 space-ACPC"
    assert series.entities["desc"] == "preproc"


# Which series


def test_every_series_of_a_subject_is_found(raw):
    for stem in ("sub-01_ses-1_dir-AP", "sub-01_ses-1_dir-PA", "sub-01_ses-2_run-2", "sub-01_ses-2_run-10", "sub-02"):
        raw.dwi(stem)
    labels = [series.label for series in find(raw)]
    assert labels == [
        "sub-01 ses-1 dir-AP",
        "sub-01 ses-1 dir-PA",
        "sub-01 ses-2 run-2",
        "sub-01 ses-2 run-10",
        "sub-02",
    ]


def test_only_asked_subjects_and_sessions(raw):
    for stem in ("sub-01_ses-1", "sub-01_ses-2", "sub-011_ses-1", "sub-02_ses-1"):
        raw.dwi(stem)
    assert [s.label for s in find(raw, participants=("01",))] == ["sub-01 ses-1", "sub-01 ses-2"]
    assert [s.label for s in find(raw, sessions=("2",))] == ["sub-01 ses-2"]


def test_other_folders_and_images_are_no_series(raw):
    raw.dwi("sub-01")
    for folder in ("derivatives/other", "sourcedata", "code"):
        Skeleton(raw.root / folder).dwi("sub-01_acq-other")
    raw.image("sub-01", "sbref", "dwi")
    raw.image("sub-01_dir-AP", "epi", "fmap")
    raw.dwi("sub-01_part-phase")
    assert [series.label for series in find(raw)] == ["sub-01"]


def _reference(raw, stem, bvals="0 0", bvecs="0 0\n0 0\n0 0"):
    raw.dwi(stem, shape=(6, 6, 4, 2))
    raw.text(f"{stem.partition('_')[0]}/dwi/{stem}_dwi.bval", bvals)
    raw.text(f"{stem.partition('_')[0]}/dwi/{stem}_dwi.bvec", bvecs)


@pytest.mark.parametrize("bvals", ["0 0", "5 5", "0\n0"])
def test_references_of_b0_volumes_are_left_out(raw, caplog, bvals):
    """Datasets hold b0 volumes with the phase reversed beside the series that they serve to correct."""
    raw.dwi("sub-01_dir-AP")
    _reference(raw, "sub-01_dir-PA", bvals)
    with caplog.at_level("INFO"):
        series, problems = scan_series(configure(raw.root))
    assert [one.label for one in series] == ["sub-01 dir-AP"]
    assert problems == []
    assert "sub-01_dir-PA_dwi.nii.gz: all its volumes are b0" in caplog.text
    assert series_names(configure(raw.root)) == {"sub-01_dir-AP": True}


@pytest.mark.parametrize("bvals", ["0 3", "60 60", "nan nan"])
def test_a_series_that_only_looks_like_a_reference_stays(raw, bvals):
    """b-values of 0 to 3 may be in ms/um2; what is wrong with such a series is told later."""
    raw.dwi("sub-01_dir-AP")
    _reference(raw, "sub-01_dir-PA", bvals)
    assert len(find(raw)) == 2


def test_a_subject_of_references_alone_stays(raw):
    """So that it is refused with the reason, instead of missing without a word."""
    raw.dwi("sub-01")
    _reference(raw, "sub-02")
    assert [one.label for one in find(raw)] == ["sub-01", "sub-02"]


def test_a_subject_asked_for_without_series_is_told(raw):
    raw.dwi("sub-01")
    raw.t1w("sub-02")
    series, problems = scan_series(configure(raw.root, participants=("01", "02")))
    assert [one.label for one in series] == ["sub-01"]
    assert ["sub-02" in str(problem) for problem in problems] == [True]
    assert scan_series(configure(raw.root))[1] == []


def test_a_dataset_behind_a_link_keeps_its_name(raw, tmp_path):
    raw.dwi("sub-01")
    (tmp_path / "link").symlink_to(raw.root)
    config = Config(tmp_path / "link", tmp_path / "out", tmp_path / "work")
    assert find_series(config)[0].dwi == tmp_path / "link/sub-01/dwi/sub-01_dwi.nii.gz"


def test_subjects_come_in_natural_order(raw):
    for label in ("10", "2", "a"):
        raw.dwi(f"sub-{label}")
    assert subject_labels(raw.root) == ["2", "10", "a"]


def test_missing_subject_is_named_with_those_there(raw):
    raw.dwi("sub-01")
    with pytest.raises(NoSuchSubjectError, match=r"no sub-09 .* There are: 01\."):
        find(raw, participants=("01", "09"))


def test_missing_session_is_named_with_those_there(raw):
    raw.dwi("sub-01_ses-a")
    with pytest.raises(NoSuchSessionError, match=r"no ses-b .* There are: a\."):
        find(raw, sessions=("b",))


def test_no_series_tells_the_filter(raw):
    raw.dwi("sub-01_dir-AP")
    with pytest.raises(NoDwiError, match=r'\{"direction": "XX"\}'):
        find(raw, filters={"dwi": {"direction": "XX"}})


def test_folder_that_is_not_bids(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(NotBidsError, match="dataset_description"):
        find_series(configure(tmp_path / "raw"))


def test_description_may_be_missing_without_validation(raw):
    raw.dwi("sub-01")
    (raw.root / "dataset_description.json").unlink()
    assert find(raw, validate=False)[0].dataset_name == "raw"


@pytest.mark.parametrize("text", ["{", "[]"])
def test_broken_description_is_refused(raw, text):
    raw.dwi("sub-01")
    raw.text("dataset_description.json", text)
    with pytest.raises(NotBidsError):
        find(raw)


# Filters


@pytest.mark.parametrize(
    ("value", "expected"),
    [("AP", ["sub-01 dir-AP"]), (None, ["sub-01"]), ("*", ["sub-01 dir-AP", "sub-01 dir-PA"])],
)
def test_filter_values(raw, value, expected):
    for stem in ("sub-01", "sub-01_dir-AP", "sub-01_dir-PA"):
        raw.dwi(stem)
    assert [series.label for series in find(raw, filters={"dwi": {"direction": value}, "flair": {"x": 1}})] == expected


@pytest.mark.parametrize("value", [1, "1", ["1"], [1, 3]])
def test_run_filter_takes_numbers_and_text(raw, value):
    raw.dwi("sub-01_run-01")
    raw.dwi("sub-01_run-02")
    assert [series.label for series in find(raw, filters={"dwi": {"run": value}})] == ["sub-01 run-01"]


@pytest.mark.parametrize("entity", ["sesion", "dir"])
def test_filter_on_an_unknown_entity_is_refused(raw, entity):
    """The advice is for users of the program, not for programmers that call pybids."""
    raw.dwi("sub-01")
    with pytest.raises(BadFilterError, match=f"{entity}.*such as direction") as refused:
        find(raw, filters={"dwi": {entity: "1"}})
    assert "invalid_filters" not in str(refused.value)


def test_filter_chooses_the_t1w(raw):
    raw.dwi("sub-01")
    raw.t1w("sub-01_run-1")
    second = raw.t1w("sub-01_run-2")
    assert find(raw, filters={"t1w": {"run": 2}})[0].t1w == second


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [None]),
        ("denoised", ["denoised"]),
        ([None, "denoised"], [None, "denoised"]),
        ("*", ["denoised", "preproc"]),
    ],
)
def test_filter_on_the_description(tmp_path, value, expected):
    skeleton = Skeleton(tmp_path / "made", derivative=True)
    for number, desc in enumerate(("", "_desc-denoised", "_desc-preproc"), start=1):
        skeleton.dwi(f"sub-0{number}{desc}")
    found = find(skeleton, filters={"dwi": {"desc": value}})
    assert [series.entities.get("desc") for series in found] == expected


def test_filter_takes_the_t1w_without_description(raw, tmp_path):
    """Preprocessed ones are preferred otherwise; the raw dataset has no file with one, which pybids must not mind."""
    raw.dwi("sub-01")
    plain = raw.t1w("sub-01")
    other = Skeleton(tmp_path / "prior", derivative=True)
    preprocessed = other.t1w("sub-01_desc-preproc")
    assert find(raw, derivatives={"prior": other.root})[0].t1w == preprocessed
    assert find(raw, derivatives={"prior": other.root}, filters={"t1w": {"desc": None}})[0].t1w == plain


# Inheritance


def test_gradients_beside_the_image_win_over_inherited_ones(raw):
    raw.dwi("sub-01")
    raw.gradients("dwi")
    (series,) = find(raw)
    assert series.bval.parent.name == series.bvec.parent.name == "dwi"


@pytest.mark.parametrize("place", ["dwi", "sub-01/sub-01_dwi", "sub-01/ses-1/sub-01_ses-1_dwi", "acq-a_dwi"])
def test_gradients_are_inherited_from_every_level(raw, place):
    raw.dwi("sub-01_ses-1_acq-a", gradients=False)
    bval, bvec = raw.gradients(place)
    (series,) = find(raw)
    assert (series.bval, series.bvec) == (bval, bvec)


def test_gradients_of_another_series_do_not_apply(raw):
    raw.dwi("sub-01_dir-AP", gradients=False)
    raw.gradients("sub-01/dwi/sub-01_dir-PA_dwi")
    raw.gradients("sub-01/dwi/sub-01_dir-AP_sbref")
    with pytest.raises(MissingGradientsError, match=r"no \.bval file applies"):
        find(raw)


def test_two_equally_near_gradients_are_refused(raw):
    raw.dwi("sub-01_acq-a_dir-AP", gradients=False)
    raw.gradients("acq-a_dwi")
    raw.gradients("dir-AP_dwi")
    with pytest.raises(AmbiguousFileError, match=r"acq-a_dwi\.bval and dir-AP_dwi\.bval"):
        find(raw)


def test_metadata_merge_with_the_nearest_winning(raw):
    raw.dwi("sub-01_ses-1", sidecar=False)
    raw.json("dwi.json", {"EchoTime": 1, "Manufacturer": "A"})
    raw.json("sub-01/sub-01_dwi.json", {"EchoTime": 2, "FlipAngle": 90})
    raw.json("sub-01/ses-1/dwi/sub-01_ses-1_dwi.json", {"EchoTime": 3})
    (series,) = find(raw)
    assert dict(series.sidecar) == {"EchoTime": 3, "Manufacturer": "A", "FlipAngle": 90}


def test_one_broken_series_does_not_stop_the_others(raw):
    raw.dwi("sub-01")
    raw.dwi("sub-02", gradients=False)
    raw.text("sub-03/dwi/sub-03_dwi.json", "{")
    raw.dwi("sub-03", sidecar=False)
    series, problems = scan_series(configure(raw.root))
    assert [one.label for one in series] == ["sub-01"]
    assert {type(problem) for problem in problems} == {MissingGradientsError, UnreadableSidecarError}


def test_missing_content_of_a_datalad_link_is_told(raw):
    image = raw.dwi("sub-01")
    image.unlink()
    image.symlink_to("/nowhere/annex/key")
    with pytest.raises(UnavailableFileError, match="datalad get"):
        find(raw)


def test_invalid_names_are_refused_unless_validation_is_off(raw):
    raw.dwi("sub-01_nonsense-x")
    with pytest.raises(InvalidNameError):
        find(raw)
    assert len(find(raw, validate=False)) == 1


# T1w


def test_t1w_of_the_same_session(raw):
    raw.dwi("sub-01_ses-2")
    raw.t1w("sub-01_ses-1")
    own = raw.t1w("sub-01_ses-2")
    (series,) = find(raw)
    assert (series.t1w, series.t1w_note, series.t1w_is_aligned) == (own, "same session", False)


def test_t1w_of_the_nearest_session(raw):
    raw.dwi("sub-01_ses-9")
    raw.t1w("sub-01_ses-1")
    near = raw.t1w("sub-01_ses-10")
    (series,) = find(raw, sessions=("9",))
    assert (series.t1w, series.t1w_note) == (near, "session 10 of the same subject")


def test_dates_of_sessions_decide_which_is_nearest(raw):
    raw.dwi("sub-01_ses-b")
    near, _ = raw.t1w("sub-01_ses-a"), raw.t1w("sub-01_ses-c")
    raw.text(
        "sub-01/sub-01_sessions.tsv",
        "session_id\tacq_time\nses-a\t2020-01-01T09:00:00\nses-b\t2020-01-02T09:00:00\nses-c\t2021-01-01T09:00:00\n",
    )
    assert find(raw)[0].t1w == near


def test_t1w_of_another_subject_is_never_taken(raw):
    raw.dwi("sub-01")
    raw.t1w("sub-02")
    (series,) = find(raw, participants=("01",))
    assert (series.t1w, series.t1w_note) == (None, "")


def test_no_t1w_when_not_wanted(raw):
    raw.dwi("sub-01")
    raw.t1w("sub-01")
    assert find(raw, use_t1w=False)[0].t1w is None


def test_first_of_several_runs_is_taken_and_noted(raw):
    raw.dwi("sub-01")
    raw.t1w("sub-01_ce-gadolinium")
    raw.t1w("sub-01_run-2")
    first = raw.t1w("sub-01_run-1")
    (series,) = find(raw)
    assert series.t1w == first
    assert "one of 3 images" in series.t1w_note


def test_session_free_t1w_serves_every_session(raw):
    raw.dwi("sub-01_ses-1")
    subject = raw.t1w("sub-01")
    (series,) = find(raw)
    assert (series.t1w, series.t1w_note) == (subject, "of the subject, without a session")


def test_a_t1w_that_is_not_there_can_be_passed_over_as_its_message_says(raw):
    raw.dwi("sub-01")
    gone, other = raw.t1w("sub-01_run-1"), raw.t1w("sub-01_run-2")
    gone.unlink()
    gone.symlink_to("/nowhere/annex/key")
    with pytest.raises(UnusableT1wError, match=r"run-1.*datalad get.*another T1w.*--bids-filter-file.*--no-t1w"):
        find(raw)
    assert find(raw, use_t1w=False)[0].t1w is None
    assert find(raw, filters={"t1w": {"run": 2}})[0].t1w == other


# Derivatives


@pytest.mark.parametrize("session", [None, "1"])
@pytest.mark.parametrize("space", ["ACPC", "T1w"])
def test_qsiprep_dataset_as_input(tmp_path, session, space):
    skeleton = qsiprep(tmp_path / "qsiprep", session=session, space=space)
    skeleton.image("sub-01_space-MNI152NLin2009cAsym_desc-preproc", "T1w", "anat")
    skeleton.image("sub-01_desc-aseg", "dseg", "anat")
    (series,) = find(skeleton)
    assert series.is_derivative
    assert series.t1w_is_aligned
    assert series.t1w.name == (
        "sub-01_space-ACPC_desc-preproc_T1w.nii.gz" if space == "ACPC" else "sub-01_desc-preproc_T1w.nii.gz"
    )
    assert series.mask.name == series.dwi.name.replace("desc-preproc_dwi", "desc-brain_mask")


def test_derivative_dataset_uses_preprocessed_series_only(tmp_path):
    skeleton = qsiprep(tmp_path / "qsiprep")
    skeleton.dwi("sub-01_space-ACPC_desc-denoised")
    assert [series.entities["desc"] for series in find(skeleton)] == ["preproc"]
    assert [s.entities["desc"] for s in find(skeleton, filters={"dwi": {"desc": "denoised"}})] == ["denoised"]


def test_two_versions_of_one_series_would_share_their_outputs(tmp_path):
    skeleton = qsiprep(tmp_path / "qsiprep")
    skeleton.dwi("sub-01_space-ACPC_desc-denoised")
    series, problems = scan_series(configure(skeleton.root, filters={"dwi": {"desc": "*"}}))
    assert len(series) == 1
    assert [type(problem) for problem in problems] == [SameOutputError]


def test_two_resolutions_of_one_series_would_share_their_outputs(tmp_path):
    skeleton = Skeleton(tmp_path / "made", derivative=True)
    for resolution in ("1", "2"):
        skeleton.dwi(f"sub-01_space-T1w_res-{resolution}_desc-preproc")
    series, problems = scan_series(configure(skeleton.root))
    assert len(series) == 1
    assert [type(problem) for problem in problems] == [SameOutputError]
    assert "res-1" in str(problems[0]) and "res-2" in str(problems[0])
    (chosen,) = find(skeleton, filters={"dwi": {"res": "2"}})
    assert chosen.entities["res"] == "2"


def test_mask_and_preprocessed_t1w_from_other_derivatives(raw, tmp_path):
    raw.dwi("sub-01_dir-AP")
    raw.t1w("sub-01")
    other = Skeleton(tmp_path / "prior", derivative=True)
    mask = other.mask("sub-01_dir-AP_desc-brain")
    other.mask("sub-01_dir-PA_desc-brain")
    t1w = other.t1w("sub-01_desc-preproc")
    (series,) = find(raw, derivatives={"prior": other.root})
    assert (series.mask, series.t1w, series.t1w_is_aligned) == (mask, t1w, False)
    assert series.t1w_note == "same session; from the derivatives prior"


def test_mask_in_another_space_is_not_taken(raw, tmp_path):
    raw.dwi("sub-01")
    other = qsiprep(tmp_path / "prior")
    assert find(raw, derivatives={"prior": other.root})[0].mask is None


# The database


def test_database_is_made_once_and_read_again(raw, tmp_path):
    raw.dwi("sub-01")
    raw.dwi("sub-02")
    database = tmp_path / "db"
    assert [s.label for s in find(raw, participants=("01",), bids_database_dir=database)] == ["sub-01"]
    before = sorted((path.name, path.stat().st_mtime_ns) for path in database.iterdir())
    assert [s.label for s in find(raw, participants=("02",), bids_database_dir=database)] == ["sub-02"]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in database.iterdir()) == before


def test_database_of_another_dataset_is_refused(raw, tmp_path):
    raw.dwi("sub-01")
    find(raw, bids_database_dir=tmp_path / "db")
    other = Skeleton(tmp_path / "other")
    other.dwi("sub-01")
    with pytest.raises(StaleDatabaseError):
        find(other, bids_database_dir=tmp_path / "db")


def killed(*_, **__):
    raise KeyboardInterrupt


def test_a_database_that_was_not_finished_is_not_taken_for_one(raw, tmp_path, monkeypatch):
    """pybids makes an empty one before it reads the dataset."""
    raw.dwi("sub-01")
    with monkeypatch.context() as patch:
        patch.setattr("bids.layout.index.BIDSLayoutIndexer.__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            find(raw, bids_database_dir=tmp_path / "db")
    assert [s.label for s in find(raw, bids_database_dir=tmp_path / "db")] == ["sub-01"]
    assert [file.name for file in (tmp_path / "db").iterdir()] == ["layout_index.sqlite"]


def test_series_that_came_after_the_database_are_told(raw, tmp_path, caplog):
    raw.dwi("sub-01_ses-1")
    find(raw, bids_database_dir=tmp_path / "db")
    assert not caplog.messages
    raw.dwi("sub-01_ses-2")
    raw.dwi("sub-02")
    assert [s.label for s in find(raw, bids_database_dir=tmp_path / "db")] == ["sub-01 ses-1"]
    (message,) = caplog.messages
    assert f"{tmp_path / 'db'} does not know {raw.root / 'sub-01/ses-2/dwi'}" in message
    assert "2 images" in message and "Remove that folder" in message


def test_a_database_without_a_series_is_named(raw, tmp_path):
    raw.t1w("sub-01")
    with pytest.raises(NoDwiError) as refused:
        find(raw)
    assert "--bids-database-dir" not in str(refused.value)
    with pytest.raises(NoDwiError, match=f"{tmp_path / 'db'} .--bids-database-dir.; remove that folder"):
        find(raw, bids_database_dir=tmp_path / "db")


def test_names_of_series_need_no_usable_files(raw, tmp_path):
    """Only what the names say: the content may have been dropped, the gradients be missing."""
    raw.dwi("sub-10_dir-AP", gradients=False)
    (raw.root / "sub-2" / "dwi").mkdir(parents=True)
    (raw.root / "sub-2/dwi/sub-2_dir-PA_dwi.nii.gz").symlink_to(tmp_path / "annex")
    raw.text("sub-2/dwi/sub-3_dwi.nii.gz", "in the folder of another subject")
    assert series_names(configure(raw.root)) == {"sub-2_dir-PA": True, "sub-10_dir-AP": True}
    assert series_names(configure(raw.root, filters={"dwi": {"direction": "AP"}})) == {"sub-10_dir-AP": True}
    preprocessed = qsiprep(tmp_path / "qsiprep")
    assert list(series_names(configure(preprocessed.root))) == [one.stem for one in find(preprocessed)]


@pytest.mark.parametrize("content", ["link", "/annex/objects/MD5E-s4--0.bval", "version https://git-lfs.github.com"])
def test_names_of_series_whose_gradients_were_dropped_may_be_those_of_references(raw, content):
    """Of a subject with one series they cannot: its series is refused, not left out."""
    for stem in ("sub-01_dir-AP", "sub-01_dir-PA", "sub-02"):
        raw.dwi(stem)
    for file in (raw.root / "sub-01/dwi/sub-01_dir-PA_dwi.bval", raw.root / "sub-02/dwi/sub-02_dwi.bval"):
        file.unlink()
        file.symlink_to("/nowhere/annex/key") if content == "link" else file.write_text(content)
    assert series_names(configure(raw.root)) == {"sub-01_dir-AP": True, "sub-01_dir-PA": False, "sub-02": True}


# Real data


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real scans in {REAL}; set BIDS_SR_TEST_DATA")
def test_all_real_subjects_get_their_t1w():
    found = {series.label: series.t1w and series.t1w.name for series in find_series(configure(REAL))}
    assert found == {
        "sub-elition": "sub-elition_T1w.nii.gz",
        "sub-nimhans": None,
        "sub-sag": None,
        "sub-trio": None,
        "sub-uih dir-AP": "sub-uih_T1w.nii.gz",
        "sub-uih dir-PA": "sub-uih_T1w.nii.gz",
        "sub-xa30 dir-AP": "sub-xa30_run-1_T1w.nii.gz",
        "sub-xa30 dir-PA": "sub-xa30_run-1_T1w.nii.gz",
    }


def test_inputs_are_not_touched(raw):
    raw.dwi("sub-01")
    before = {path: path.stat().st_mtime_ns for path in raw.root.rglob("*")}
    find(raw)
    assert {path: path.stat().st_mtime_ns for path in raw.root.rglob("*")} == before
    assert json.loads((raw.root / "dataset_description.json").read_text())["DatasetType"] == "raw"


def test_of_two_gradient_files_in_a_folder_the_one_that_shares_more_entities_is_nearer(raw):
    """Both apply; the general one comes first by its name."""
    raw.dwi("sub-01_acq-x_dir-AP", gradients=False)
    raw.gradients("sub-01/dwi/sub-01_acq-x_dwi")
    raw.gradients("sub-01/dwi/sub-01_dir-AP_acq-x_dwi")
    (series,) = find(raw)
    assert {series.bval.name, series.bvec.name} == {f"sub-01_dir-AP_acq-x_dwi.{end}" for end in ("bval", "bvec")}
