"""A T1w that does not fit is refused, with the reason."""

import pytest

from bids_sr.dwi.trust import distrust


@pytest.mark.parametrize(
    "registration",
    [
        {},
        {"agreement": 0.15},
        {"agreement": 0.15, "contrast": -0.4},
        {"agreement": 0.15, "contrast": -0.4, "coverage": 0.9},
    ],
)
def test_what_fits_is_trusted(registration):
    assert distrust(registration) == ""


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"agreement": 0.05}, "it shares little with the b0 (agreement 0.050 of 1)"),
        ({"contrast": 0.4}, "its contrast is not that of a T1w (correlation 0.40)"),
        ({"coverage": 0.5}, "it shows only 50% of the brain"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, reason):
    right = {"agreement": 0.15, "contrast": -0.3, "coverage": 1.0}
    assert distrust(right | wrong) == reason


@pytest.mark.parametrize("name", ["agreement", "contrast", "coverage"])
def test_what_is_not_known_is_not_trusted(name):
    assert distrust({name: float("nan")})
