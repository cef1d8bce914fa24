"""Settings that all tests share."""

import os

import pytest

# Before torch or numpy are imported: two OpenMP programs on one processor slow each other tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A small dataset of the demo; nobody writes into it."""
    from bids_sr.demo.dataset import make_dataset

    folder = tmp_path_factory.mktemp("data") / "raw"
    make_dataset(folder, small=True)
    return folder
