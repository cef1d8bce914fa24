"""Every message is one line that can be made, and survives the way back from a worker process."""

import pickle
import string

import pytest

from bids_sr import errors


def subclasses(base):
    return [cls for child in base.__subclasses__() for cls in (child, *subclasses(child))]


def field_names(cls):
    return {name for _, name, _, _ in string.Formatter().parse(cls.template) if name}


@pytest.mark.parametrize("cls", subclasses(errors.BidsSrError))
def test_every_error_is_one_line_and_pickles(cls):
    error = cls(**dict.fromkeys(field_names(cls), 1.0))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is cls
    assert str(copy) == str(error)
    assert "\n" not in str(error)
    assert copy.exit_code == cls.exit_code


def test_every_error_has_a_documented_exit_code():
    assert {cls.exit_code for cls in subclasses(errors.BidsSrError)} <= {1, 2, 137}
    assert all(cls.exit_code == 2 for cls in subclasses(errors.InputError))


def test_a_field_left_out_is_a_bug_that_shows():
    with pytest.raises(KeyError, match="option"):
        errors.ConfigurationError(reason="x")
