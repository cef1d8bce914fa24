"""One person is one person, in whichever pack and by whichever scan; equal names in different datasets are two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.training.subjects import may_share_subject, namesakes, shared_subjects, subject_of, trained_on

names = st.builds(
    lambda dataset, subject, rest: f"{dataset}sub-{subject}{rest}",
    st.sampled_from(["", "a/", "b/"]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["", "_dir-AP", "_ses-1_dir-PA"]),
)


@pytest.mark.parametrize(
    ("scan", "other", "same"),
    [
        ("a/sub-01", "sub-01", True),
        ("sub-01_dir-AP", "sub-01_dir-PA", True),
        ("a/sub-01_ses-1", "a/sub-01_ses-2", True),
        ("a/sub-01", "b/sub-01", False),
        ("sub-01", "sub-011", False),
        ("a/sub-01", "a/sub-02", False),
        ("simulated-1-0", "simulated-1-1", False),
    ],
)
def test_scans_of_one_person(scan, other, same):
    assert may_share_subject(scan, other) == same
    assert shared_subjects([scan], [other]) == ([subject_of(scan)] if same else [])


@given(st.lists(names), st.lists(names))
def test_who_is_on_both_sides_does_not_depend_on_which_is_which(scans, others):
    shared = shared_subjects(scans, others)
    assert shared == shared_subjects(others, scans)
    assert set(shared) <= {subject_of(scan) for scan in scans} & {subject_of(other) for other in others}


def test_one_name_in_two_datasets_is_told_unless_it_is_known_to_be_one_person():
    raw, derived = ["bids/sub-01", "bids/sub-02"], ["qsiprep/sub-01_space-ACPC_desc-preproc", "bids/sub-02_run-2"]
    assert namesakes(raw, derived) == ["sub-01"]
    assert namesakes(raw, ["sub-01"]) == namesakes(raw, ["qsiprep/sub-03"]) == []


@given(st.lists(names), st.lists(names))
def test_subjects_of_one_name_are_shared_or_told(scans, others):
    both = {subject_of(scan) for scan in scans} & {subject_of(other) for other in others}
    assert set(shared_subjects(scans, others)) | set(namesakes(scans, others)) == both


def test_scans_of_earlier_trainings_count_as_seen():
    training = {"scans": ["sub-01"], "started_from": {"scans": ["sub-02"], "started_from": {"scans": ["sub-03"]}}}
    assert trained_on(training) == ["sub-01", "sub-02", "sub-03"]
    assert trained_on({}) == []
