"""What a model is given is named, the volume first."""

import pytest

from bids_sr.errors import SignalError
from bids_sr.models.base import Signal


def test_known_names_are_taken_in_their_order():
    assert Signal(("volume", "t1w"), "b0").inputs == ("volume", "t1w")
    assert Signal() == Signal(("volume", "b0", "shell"), "shell")


@pytest.mark.parametrize(
    ("inputs", "normalization", "what"),
    [
        ((), "shell", "volume to restore"),
        (("b0", "volume"), "shell", "volume to restore"),
        (("volume", "t2w"), "shell", "t2w is not a known input"),
        (("volume", "t1w", "t1w"), "shell", "twice"),
        (("volume",), "max", "max is not a known normalization"),
    ],
)
def test_others_are_refused(inputs, normalization, what):
    with pytest.raises(SignalError, match=what) as caught:
        Signal(inputs, normalization)
    assert caught.value.exit_code == 2
