"""A made record with its pictures, and a browser, shared by the tests of the pages."""

import numpy as np
import pytest

from bids_sr.reports.figures import save_series_figures
from tests.browser import Browser
from tests.reports.brains import anatomy, averaged, fine_panel, panel, record


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless browser; only for tests that `needs_browser`."""
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A record whose pictures exist."""
    folder = tmp_path_factory.mktemp("figures")
    acquired = panel()
    figures = save_series_figures(
        folder,
        "sub-01_res-1",
        acquired=acquired,
        sr=fine_panel(),
        cubic=fine_panel(),
        dwi_volume=1,
        dwi_b=1000.0,
        t1w=anatomy(),
        averaged=averaged(acquired),
        tissues=np.where(acquired.mask, 3, 0).astype(np.uint8),
        bvals=np.array([0.0, 1000, 1000]),
        bvecs=np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 1]]),
    )
    return folder, record(figures)
