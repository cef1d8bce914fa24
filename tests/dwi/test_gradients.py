"""What a gradient table may hold, and what is refused."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr import errors
from bids_sr.dwi.gradients import (
    Gradients,
    check_gradients,
    dipy_table,
    is_b0,
    read_bvals,
    read_gradients,
    shells,
    spread_out,
    tensor_rank,
)
from tests.dwi.made_series import directions, one_shell


def write(folder, bvals, bvecs):
    (folder / "a.bval").write_text(bvals)
    (folder / "a.bvec").write_text(bvecs)
    return read_gradients(folder / "a.bval", folder / "a.bvec")


def test_rows_become_volumes(tmp_path):
    read = write(tmp_path, "0 1000\t1000 5\n", "0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    np.testing.assert_array_equal(read.bvals, [0, 1000, 1000, 5])
    np.testing.assert_array_equal(read.bvecs[1], [1, 0, 0])


@pytest.mark.parametrize(
    "bvecs", ["0,1,0,0\r\n0,0,1,0\r\n0,0,0,1\r\n", "0 0 0\n1 0 0\n0 1 0\n0 0 1", "\ufeff0 1 0 0\n0 0 1 0\n0 0 0 1\n\n"]
)
def test_common_spellings_are_understood(tmp_path, bvecs):
    expected = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(write(tmp_path, "0\n1\n1\n1\n", bvecs).bvecs, expected)


def test_a_square_table_is_three_rows(tmp_path):
    np.testing.assert_array_equal(write(tmp_path, "1 1 1", "1 0 0\n1 0 0\n0 1 1").bvecs[0], [1, 1, 0])


def test_nan_vectors_of_a_b0_are_kept_as_they_are(tmp_path):
    assert np.isnan(write(tmp_path, "0 1", "nan 1\nnan 0\nnan 0").bvecs[0]).all()


@pytest.mark.parametrize(
    ("bvals", "bvecs"),
    [("", "0\n0\n1"), ("0 x", "0 0\n0 0\n0 1"), ("0 1\n2 3", "0\n0\n1"), ("0 1", "0 0\n0 1"), ("0 1", "0 0\n0 0\n1")],
)
def test_what_is_no_table_is_refused_by_name(tmp_path, bvals, bvecs):
    with pytest.raises(errors.GradientFileError, match=r"a\.bv"):
        write(tmp_path, bvals, bvecs)


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(errors.GradientFileError):
        read_gradients(tmp_path / "none.bval", tmp_path / "none.bvec")


def altered(volume: int, bval: float | None = None, bvec=None) -> Gradients:
    gradients = one_shell()
    bvals, bvecs = gradients.bvals.copy(), gradients.bvecs.copy()
    bvals[volume] = bvals[volume] if bval is None else bval
    bvecs[volume] = bvecs[volume] if bvec is None else bvec
    return Gradients(bvals, bvecs)


@pytest.mark.parametrize(
    "gradients",
    [
        one_shell(),
        one_shell(6),
        altered(0, bvec=np.full(3, np.nan)),
        altered(0, bval=45, bvec=[1, 0, 0]),
        altered(3, bvec=[0.999, 0.03, 0]),
    ],
)
def test_good_gradients_pass(gradients):
    check_gradients(gradients, len(gradients), 50, "dwi.nii")


@pytest.mark.parametrize(
    ("gradients", "error"),
    [
        (altered(4, bval=-1), errors.GradientValueError),
        (altered(4, bval=np.nan), errors.GradientValueError),
        (altered(4, bval=np.inf), errors.GradientValueError),
        (altered(0, bval=100), errors.NoB0Error),
        (altered(4, bvec=[0, 0, 0]), errors.GradientNormError),
        (altered(4, bvec=[np.nan, 0, 1]), errors.GradientNormError),
        (altered(4, bvec=[0.7, 0, 0]), errors.GradientNormError),
        (one_shell(5), errors.GradientDirectionsError),
        (Gradients(np.zeros(3), np.zeros((3, 3))), errors.NoWeightedVolumeError),
    ],
)
def test_bad_gradients_are_refused_with_the_series_named(gradients, error):
    with pytest.raises(error, match=r"sub-01_dwi\.nii") as caught:
        check_gradients(gradients, len(gradients), 50, "sub-01_dwi.nii")
    assert caught.value.exit_code == 2
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 (our own object)


def test_counts_must_agree():
    with pytest.raises(errors.GradientCountError, match="21 b-values and 21 b-vectors for 20 volumes"):
        check_gradients(one_shell(), 20, 50, "dwi.nii")


def test_repeated_and_opposite_directions_count_once():
    five = directions(5)
    assert tensor_rank(np.vstack([five, five, -five])) == 5
    assert tensor_rank(directions(6)) == 6


def test_shells_are_numbered_by_b_value():
    bvals = np.array([0, 2010, 995, 5, 1005, 1990, 3000])
    np.testing.assert_array_equal(shells(bvals, 50), [0, 2, 1, 0, 1, 2, 3])


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=30), st.randoms())
def test_shells_do_not_depend_on_the_order_of_volumes(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    bvals = np.array(values)
    np.testing.assert_array_equal(shells(bvals, 50)[order], shells(bvals[order], 50))
    np.testing.assert_array_equal(shells(bvals, 50) == 0, is_b0(bvals, 50))


def test_dipy_gets_unit_vectors_and_zero_for_b0():
    table = dipy_table(altered(0, bvec=np.full(3, np.nan)), 50)
    np.testing.assert_allclose(np.linalg.norm(table.bvecs[1:], axis=1), 1)
    np.testing.assert_array_equal(table.bvecs[0], 0)
    np.testing.assert_array_equal(table.b0s_mask, [True] + [False] * 20)


def test_what_is_wrong_with_a_file_is_told(tmp_path):
    """How many rows there are and of what, and why a file that is not there cannot be read."""
    file = tmp_path / "two.bval"
    file.write_text("0 1000 1000\n0 1000 1000\n")
    with pytest.raises(errors.GradientFileError, match="2 rows of 3 where one is expected"):
        read_bvals(file)
    with pytest.raises(errors.GradientFileError, match=r"gone\.bval cannot be read.*: No such file"):
        read_bvals(tmp_path / "gone.bval")


def test_an_order_by_spread_holds_each_axis_once_also_where_axes_repeat():
    axes = np.repeat(directions(5), 3, axis=0)
    order = spread_out(axes)
    assert sorted(order) == list(range(15))
    assert len({index // 3 for index in order[:5]}) == 5
