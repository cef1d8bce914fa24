"""Whether a T1w may be shown to a model: by how it fits the series that it was registered to."""

from collections.abc import Mapping
from typing import Any

#: Normalized mutual information of a T1w and the b0 of one head. `benchmarks/results/registration.txt`: 0.15 to 0.16
#: where the registration is known to be right, at most 0.07 with the T1w of another head.
LEAST_AGREEMENT = 0.1
#: Rank correlation of a T1w and the b0: -0.34 and -0.15 for the T1w images of two scans, 0.40 and 0.15 for the same
#: images with their contrast inverted.
LARGEST_CONTRAST = 0.1
#: Part of the brain that a T1w has to show. Of a half head the registration may go astray (a third of the made head was
#: put 19 mm off with an agreement of 0.11), and a model would see an edge where the image ends.
LEAST_COVERAGE, FULL_COVERAGE = 0.8, 0.98
#: Why a model that uses the T1w was given zeros in its place.
NO_T1W = "there is none"
BLANK_T1W = "it shows nothing where the brain is"


def distrust(registration: Mapping[str, Any]) -> str:
    """Why a T1w must not be shown to a model, or nothing.

    Parameters
    ----------
    registration : mapping
        "agreement", "contrast" and "coverage" of `bids_sr.dwi.registration.Registration`; empty where the T1w was given
        aligned.
    """
    agreement, contrast = registration.get("agreement", 1.0), registration.get("contrast", -1.0)
    coverage = registration.get("coverage", 1.0)
    if not agreement >= LEAST_AGREEMENT:  # so that NaN is not trusted
        return f"it shares little with the b0 (agreement {agreement:.3f} of 1)"
    if not contrast <= LARGEST_CONTRAST:
        return f"its contrast is not that of a T1w (correlation {contrast:.2f})"
    if not coverage >= LEAST_COVERAGE:
        return f"it shows only {coverage:.0%} of the brain"
    return ""
