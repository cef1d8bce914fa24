"""What the tests of other pipelines share: one dataset of QSIPrep, restored and handed over to QSIRecon."""

import pytest

from bids_sr.cli.app import main
from tests.integration.made_qsiprep import SESSIONS, as_qsiprep
from tests.made_models import save_tiny_model


@pytest.fixture(scope="session")
def qsiprep(dataset, tmp_path_factory):
    """QSIPrep's output of one subject with two sessions."""
    folder = tmp_path_factory.mktemp("preprocessed") / "qsiprep"
    as_qsiprep(dataset, folder, SESSIONS)
    return folder


@pytest.fixture(scope="session")
def guided_card(tmp_path_factory):
    """A model that the T1w guides."""
    return save_tiny_model(tmp_path_factory.mktemp("model"), ("volume", "b0"), "b0", guided=True)


@pytest.fixture(scope="session")
def run_qsiprep(qsiprep, guided_card, tmp_path_factory):
    """Runs the app on it with some options; the exit status."""
    folder = tmp_path_factory.mktemp("run")

    def with_options(*options):
        words = [str(qsiprep), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1"]
        words += ["--scale", "1.5", "--model", guided_card, "--device", "cpu"]
        return main([*words, "--no-self-check", *options])

    with_options.folder = folder
    return with_options


@pytest.fixture(scope="session")
def qsiprep_output(run_qsiprep):
    assert run_qsiprep() == 0
    return run_qsiprep.folder / "out"


@pytest.fixture(scope="session")
def handed_over(qsiprep_output, run_qsiprep):
    """The dataset for QSIRecon, which a run over finished series makes."""
    before = {file: file.stat().st_mtime_ns for file in qsiprep_output.glob("sub-01/**/*_res-*") if file.is_file()}
    assert run_qsiprep("--output-layout", "qsirecon") == 0
    assert before == {file: file.stat().st_mtime_ns for file in before}
    return qsiprep_output / "derivatives" / "for_qsirecon_scale-1p5"
