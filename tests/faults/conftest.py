"""A dataset so small that a run takes seconds, and what an undisturbed run makes of it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.runs import Place, run
from tests.tiny import make_tiny

SUBJECTS = ("01", "02", "03", "04")


@dataclass(frozen=True)
class Reference:
    """An undisturbed result, and how long it took."""

    out: Path
    seconds: float


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Two sessions of a tiny head; nobody writes into it."""
    return make_tiny(tmp_path_factory.mktemp("faults") / "raw", n_sessions=2)


@pytest.fixture(scope="session")
def subjects(dataset, tmp_path_factory):
    """The same head under four labels."""
    folder = tmp_path_factory.mktemp("faults") / "raw"
    shutil.copytree(dataset, folder, ignore=shutil.ignore_patterns("derivatives"))
    for label in SUBJECTS[1:]:
        for file in sorted((dataset / "sub-01").rglob("*")):
            target = folder / str(file.relative_to(dataset)).replace("sub-01", f"sub-{label}")
            if file.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    return folder


@pytest.fixture(scope="session")
def reference(dataset, tmp_path_factory):
    """Result of session 1 with cubic interpolation."""
    return undisturbed(dataset, tmp_path_factory)


@pytest.fixture(scope="session")
def other_reference(dataset, tmp_path_factory):
    """The same with trilinear interpolation."""
    return undisturbed(dataset, tmp_path_factory, model="trilinear")


@pytest.fixture(scope="session")
def parallel_seconds(dataset, tmp_path_factory):
    """How long it takes with workers."""
    return undisturbed(dataset, tmp_path_factory, nprocs=2).seconds


def undisturbed(dataset, tmp_path_factory, **options):
    folder = tmp_path_factory.mktemp("reference")
    finished = run(Place(dataset, folder / "out", folder / "work").words(**options))
    assert finished.code == 0, finished.text
    return Reference(folder / "out", finished.seconds)


@pytest.fixture
def place(dataset, tmp_path):
    """Empty output and work folders."""
    return Place(dataset, tmp_path / "out", tmp_path / "work")
