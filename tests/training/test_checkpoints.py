"""A training that goes on from a checkpoint comes to the weights of one that was never cut."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from bids_sr.errors import TrainingDataError
from bids_sr.models.registry import load_model, read_card
from bids_sr.training.checkpoints import checkpoints_in, difference, find_checkpoint, requeued_checkpoint
from bids_sr.training.run import card_of, train
from bids_sr.training.settings import Loss
from tests.training.trainings import CPU, SCANS, SETTINGS, assert_equal, changed, made_scan, trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return folder, trained(SETTINGS, folder)


def state_of(checkpoint):
    """What a checkpoint holds, apart from the time it took."""
    content = torch.load(checkpoint, weights_only=True)
    content["callbacks"]["WriteWeights"].pop("seconds")
    return content


def test_any_checkpoint_leads_to_the_same_weights(tmp_path, monkeypatch):
    """Before and after a validation, and at the end; averages, and what early stopping knows, included."""
    monkeypatch.setattr("bids_sr.training.checkpoints.KEPT", 100)
    settings = changed(checkpoint_every=1, ema=0.5, patience=9)
    whole = tmp_path / "whole"
    weights = trained(settings, whole)
    last = whole / "checkpoints" / "step-00000018.ckpt"
    for step in (1, 5, 6, 7, 12, 17, 18):
        folder = shutil.copytree(whole, tmp_path / str(step))
        for later in checkpoints_in(folder / "checkpoints")[step:]:
            later.unlink()
        assert_equal(trained(settings, folder, resume=folder), weights)
        for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "callbacks"):
            assert_equal(state_of(folder / "checkpoints" / last.name)[key], state_of(last)[key])


def test_a_resumed_training_goes_on_with_its_log_and_its_clock(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    (folder / "checkpoints" / "step-00000018.ckpt").unlink()
    assert_equal(trained(SETTINGS, folder, resume=folder), finished[1])
    assert sorted(run.name for run in (folder / "log").iterdir()) == ["run-1", "run-2"]
    before, after = (read_card(str(path / "tiny.json")).training["progress"] for path in (finished[0], folder))
    assert {**before, "seconds": 0} == {**after, "seconds": 0}


def test_the_last_two_checkpoints_are_kept_and_nothing_half_written(tmp_path):
    trained(changed(checkpoint_every=4), tmp_path)
    names = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000016.ckpt", "step-00000018.ckpt"]


def test_the_last_checkpoint_of_a_folder_is_found(finished, tmp_path):
    folder = finished[0]
    last = folder / "checkpoints" / "step-00000018.ckpt"
    assert find_checkpoint(folder) == find_checkpoint(folder / "checkpoints") == find_checkpoint(last) == last
    for place, problem in ((tmp_path, "no checkpoint in this folder"), (tmp_path / "y", "no such file")):
        with pytest.raises(TrainingDataError, match=problem):
            find_checkpoint(place)


def test_halving_can_be_prolonged_and_a_cosine_not(tmp_path):
    halving = changed(max_steps=4, schedule="halving", halve_every=6)
    trained(halving, tmp_path / "short")
    longer = changed(halving, max_steps=8)
    resumed = trained(longer, tmp_path / "longer", resume=tmp_path / "short")
    assert_equal(resumed, trained(longer, tmp_path / "whole"))
    cosine = changed(max_steps=4)
    trained(cosine, tmp_path / "cosine")
    with pytest.raises(TrainingDataError, match=r"optimization\.max_steps was 4, and is 8 now"):
        trained(changed(cosine, max_steps=8), tmp_path / "x", resume=tmp_path / "cosine")


def test_where_the_weights_came_from_stays_on_the_card(finished, tmp_path):
    start = load_model(str(finished[0] / "tiny.json"), torch.device("cpu"))
    settings = changed(max_steps=4, schedule="halving", halve_every=6)
    trained(settings, tmp_path / "first", initial=start)
    trained(changed(settings, max_steps=5), tmp_path / "second", resume=tmp_path / "first")
    origin = read_card(str(tmp_path / "second" / "tiny.json")).training["started_from"]
    assert origin["weights_sha256"] == start[1].weights_sha256


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            dataclasses.replace(SETTINGS, model={**SETTINGS.model, "hidden": 8}),
            r"arguments\.hidden was 16, and is 8 now",
        ),
        (dataclasses.replace(SETTINGS, normalization="b0"), "normalization was shell, and is b0"),
        (changed(seed=3), r"optimization\.seed was 0, and is 3"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(finished, tmp_path, settings, problem):
    with pytest.raises(TrainingDataError, match=problem):
        trained(settings, tmp_path, resume=finished[0])
    assert not list(tmp_path.iterdir())


def test_a_setting_that_came_later_keeps_no_training_from_going_on_unless_it_is_used(finished, tmp_path):
    content = torch.load(finished[0] / "checkpoints" / "step-00000012.ckpt", weights_only=True)
    card = json.loads(content["bids_sr_card"])
    del card["training"]["loss"]["l2"]
    torch.save({**content, "bids_sr_card": json.dumps(card)}, tmp_path / "old.ckpt")
    assert_equal(trained(SETTINGS, tmp_path / "out", resume=tmp_path / "old.ckpt"), finished[1])
    with_it = dataclasses.replace(SETTINGS, loss=Loss(l2=0.5))
    with pytest.raises(TrainingDataError, match=r"loss\.l2 was None, and is 0\.5"):
        trained(with_it, tmp_path / "other", resume=tmp_path / "old.ckpt")


def test_a_checkpoint_of_other_scans_is_refused(finished, tmp_path):
    with pytest.raises(TrainingDataError, match="scans was"):
        train(*reversed(SCANS), SETTINGS, "tiny", tmp_path, CPU, resume=finished[0])


SEEN, WATCHED = SCANS
LIKE = dataclasses.replace(made_scan("sub-01", 0), levels=2 * SEEN[0].levels)


@pytest.mark.parametrize(
    ("scans", "validation", "problem"),
    [
        (SEEN, [made_scan("sub-03", 1)], r"validation_scans was \['sub-02'\], and is \['sub-03'\] now"),
        (SEEN, [made_scan("sub-02", 2)], r"checksums\.sub-02 was"),
        ([made_scan("sub-01", 3)], WATCHED, r"checksums\.sub-01 was"),
        ([LIKE], WATCHED, r"checksums\.sub-01 was"),
        ([dataclasses.replace(SEEN[0], voxel_sizes=np.full(3, 1.5))], WATCHED, r"range\.voxel_sizes was"),
        ([dataclasses.replace(SEEN[0], t1w=np.ones((40, 40, 40), np.float16))], WATCHED, "scans_with_t1w was 0"),
    ],
)
def test_a_checkpoint_of_other_data_under_the_same_names_is_refused(finished, tmp_path, scans, validation, problem):
    with pytest.raises(TrainingDataError, match=problem):
        train(scans, validation, SETTINGS, "tiny", tmp_path, CPU, resume=finished[0])
    assert not list(tmp_path.iterdir())


def test_a_card_of_an_earlier_version_or_without_validation_is_compared_as_far_as_it_tells(finished):
    now = card_of("tiny", SETTINGS, *SCANS, CPU)
    before = json.loads((finished[0] / "tiny.json").read_text())
    assert difference(before, now) == difference(before, card_of("tiny", SETTINGS, SEEN, (), CPU)) == ""
    assert difference(before, card_of("tiny", SETTINGS, [LIKE], (), CPU)).startswith("checksums.sub-01 was")
    for key in ("range", "checksums", "validation_scans", "scans_with_t1w"):
        del before["training"][key]
    assert difference(before, now) == ""


def test_a_model_that_a_resumed_training_did_not_begin_with_is_not_on_its_card(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    other = load_model(str(finished[0] / "tiny.json"), torch.device("cpu"))
    assert_equal(trained(SETTINGS, folder, resume=folder, initial=other), finished[1])
    assert "started_from" not in read_card(str(folder / "tiny.json")).training


def test_the_best_weights_are_not_left_behind(tmp_path):
    """They lie beside the checkpoints, which do not hold them."""
    settings = changed(patience=3, max_steps=6)
    trained(settings, tmp_path / "first")
    with pytest.raises(TrainingDataError, match="--output"):
        trained(settings, tmp_path / "second", resume=tmp_path / "first")


def test_the_folder_of_another_training_is_not_written_to(finished):
    with pytest.raises(TrainingDataError, match="checkpoints of another training"):
        trained(SETTINGS, finished[0])


def test_a_job_that_slurm_started_again_goes_on_by_itself(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    (folder / "checkpoints" / "step-00000018.ckpt").unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert_equal(trained(SETTINGS, folder), finished[1])
    assert requeued_checkpoint(folder, {"SLURM_RESTART_COUNT": "0"}) is None
    assert requeued_checkpoint(folder, {}) is None
    assert requeued_checkpoint(tmp_path, {"SLURM_RESTART_COUNT": "2"}) is None


@pytest.mark.parametrize("size", [0, 1000, 20_000])
def test_a_damaged_checkpoint_is_refused(finished, tmp_path, size):
    content = (finished[0] / "checkpoints" / "step-00000018.ckpt").read_bytes()
    assert len(content) > size
    (tmp_path / "x.ckpt").write_bytes(content[:size])
    with pytest.raises(TrainingDataError, match="not a checkpoint of bids-sr-train, or damaged"):
        trained(SETTINGS, tmp_path / "out", resume=tmp_path / "x.ckpt")


def test_pickles_are_not_executed(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"bids_sr_card": Malicious()}, tmp_path / "bad.ckpt")
    with pytest.raises(TrainingDataError, match="not a checkpoint"):
        trained(SETTINGS, tmp_path / "out", resume=tmp_path / "bad.ckpt")
    assert not (tmp_path / "executed").exists()
