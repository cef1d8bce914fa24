"""Training learns, writes the weights that the settings ask for, and says on the card what it did."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bids_sr.demo.acquisition import spread_directions
from bids_sr.errors import DeviceError, TrainingDataError, WeightsFileError
from bids_sr.models.base import Lattice
from bids_sr.models.interpolation import CubicSpline
from bids_sr.models.registry import ModelCard, build_model, file_sha256, load_model, read_card
from bids_sr.training.checkpoints import checkpoints_in
from bids_sr.training.guides import FAITHFUL
from bids_sr.training.patches import PatchSettings, PatchStream
from bids_sr.training.run import Hardware, _check_kind, _loggers, card_of, train
from bids_sr.training.settings import Loss, Optimization, Perceptual, TrainingSettings, load_settings
from bids_sr.workflows.training_range import outside_training
from tests.made_models import save_narrow_vgg
from tests.training.trainings import CPU, SCANS, SETTINGS, TINY, changed, trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A training, and the weights it came to."""
    folder = tmp_path_factory.mktemp("training")
    return folder, trained(SETTINGS, folder)


def start_of(finished):
    return load_model(str(finished[0] / "tiny.json"), torch.device("cpu"))


def test_the_toy_preset_beats_cubic_interpolation(tmp_path):
    torch.set_num_threads(1)
    settings = load_settings("toy")
    train(*SCANS, settings, "toy", tmp_path, CPU)
    model, card = load_model(str(tmp_path / "toy.json"), torch.device("cpu"))
    assert card.name == "toy"
    errors = {"toy": 0.0, "cubic": 0.0}
    stream = PatchStream(SCANS[1], settings.patches, settings.signal, seed=99, batch_size=1)
    for number in range(12):
        channels, points, cell, truth = stream.batch(number)[:4]
        lattice = Lattice((0.0, 0.0, 0.0), tuple(cell[0].tolist()))
        for name, network in (("toy", model), ("cubic", CubicSpline())):
            restored = network.query(network.encode(channels, lattice), points[0], cell[0])
            errors[name] += float((restored - truth).square().mean())
    # More than a decibel.
    assert errors["toy"] < 0.8 * errors["cubic"]


def test_the_card_tells_budget_data_and_result(finished):
    card = read_card(str(finished[0] / "tiny.json"))
    assert card.description == "A tiny model."
    assert card.scale_range == (1.5, 2.5)
    training = card.training
    assert (training["scans"], training["validation_scans"]) == (["sub-01"], ["sub-02"])
    assert training["scans_with_t1w"] == training["simulated_scans"] == 0
    progress = training["progress"]
    assert (progress["steps"], progress["patches"]) == (18, 36)
    assert 0 < progress["seconds"] < 600
    assert 0 < progress["validation_mse"] < 1
    assert training["hardware"]["torch"] == torch.__version__
    assert training["hardware"]["device"]
    assert training["weights"] == "those of the last step"


def with_bvals(scan, *bvals, voxel_size=2.0):
    """A scan that knows its b-values, those of its two weighted volumes last."""
    gradients = np.column_stack([[0.0, *bvals], np.eye(3)])
    return dataclasses.replace(scan, gradients=gradients, voxel_sizes=np.array([1.8, 1.8, voxel_size]))


def test_the_card_tells_the_range_of_what_was_learned_and_the_application_speaks_of_what_lies_outside():
    first, second = with_bvals(*SCANS[0], 995, 1000), with_bvals(*SCANS[1], 700, 2500, voxel_size=2.5)
    training = card_of("tiny", SETTINGS, [first, second], SCANS[1], CPU).training
    assert training["range"] == {"bvals": [700, 2500], "voxel_sizes": [1.8, 2.5]}
    assert outside_training("tiny", training, [1000, 2000], [2.0] * 3, [2.0] * 3) == []
    (sentence,) = outside_training("tiny", training, [5000], [1.0] * 3, [2.0] * 3)
    assert "b = 5000 s/mm2 (trained on 700 to 2500)" in sentence
    assert "voxels of 1 mm (trained on 1.8 to 2.5)" in sentence


def test_of_packs_that_hold_no_bvalues_nothing_is_told_of_them():
    scans = [with_bvals(*SCANS[0], 995, 1000), *SCANS[1]]
    assert card_of("tiny", SETTINGS, scans, SCANS[1], CPU).training["range"] == {"voxel_sizes": [1.8, 2.0]}


def test_losses_are_logged_as_a_table_and_for_tensorboard(finished):
    folder = finished[0] / "log" / "run-1"
    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    assert {"step", "validation/loss", "validation/l1", "validation/mse"} <= set(header.split(","))
    assert len(lines) == 3
    pytest.importorskip("tensorboard")
    assert list(folder.glob("events.out.tfevents*"))


def test_without_tensorboard_there_is_the_table_alone(monkeypatch, tmp_path):
    monkeypatch.setattr("bids_sr.training.run.find_spec", lambda name: None)
    assert [type(logger).__name__ for logger in _loggers(tmp_path)] == ["CSVLogger"]


def test_another_seed_gives_other_weights(finished, tmp_path):
    other = trained(changed(seed=1, max_steps=1), tmp_path)
    key = "decoder.stages.0.0.weight"
    assert not torch.allclose(other[key], finished[1][key], atol=0.05)


def test_loading_processes_do_not_change_the_result(finished, tmp_path):
    train(*SCANS, SETTINGS, "tiny", tmp_path, Hardware("cpu", workers=2))
    assert (tmp_path / "tiny.safetensors").read_bytes() == (finished[0] / "tiny.safetensors").read_bytes()


GRID_SETTINGS = TrainingSettings(
    architecture="dcsrn",
    inputs=("volume",),
    normalization="b0",
    model={"first": 4, "growth": 4, "units": 2, "scale": 2},
    patches=PatchSettings(patch=6, border=0, points=0, scale_range=(2.0, 2.0), isotropic_share=1.0, noise_share=0.0),
    loss=Loss(l1=0.0, l2=1.0, fourier=0.01, ssim=0.1),
    optimization=Optimization(max_steps=5, validate_every=5, batch_size=2, validation_examples=2, ema=0.5),
)


def test_averaged_weights_are_written_and_normalization_statistics_with_them(tmp_path, monkeypatch):
    """The average begins at the first step's weights, and takes half of each later step's."""
    monkeypatch.setattr("bids_sr.training.checkpoints.KEPT", 100)
    written = trained(changed(GRID_SETTINGS, checkpoint_every=1), tmp_path)
    steps = [
        torch.load(file, weights_only=True)["current_model_state"] for file in checkpoints_in(tmp_path / "checkpoints")
    ]
    assert any("running_var" in key for key in written)
    for key in (key for key in written if "num_batches" not in key):
        average = steps[0][f"model.{key}"]
        for weights in steps[1:]:
            average = average.lerp(weights[f"model.{key}"], 0.5)
        torch.testing.assert_close(written[key], average)
        assert not torch.equal(written[key], steps[-1][f"model.{key}"])
    card = read_card(str(tmp_path / "tiny.json"))
    assert card.training["weights"] == "those of the last step, averaged with a decay of 0.5"
    assert {"validation_fourier", "validation_l2", "validation_ssim", "train_fourier"} <= set(card.training["progress"])


def test_a_training_by_the_features_of_vgg_and_by_the_tensor(tmp_path, monkeypatch):
    """Both terms fall, and going on from a checkpoint does not ask where the weights of VGG lie."""
    first = save_narrow_vgg(monkeypatch, tmp_path)
    settings = dataclasses.replace(
        GRID_SETTINGS,
        normalization="shell",
        architecture="vdsr3d",
        model={"features": 4, "layers": 2},
        patches=dataclasses.replace(GRID_SETTINGS.patches, volumes=7),
        loss=Loss(tensor=0.1, perceptual=Perceptual(str(first), 1.0)),
        optimization=Optimization(max_steps=4, validate_every=4, batch_size=7, validation_examples=7, ema=0.5),
    )
    scans = [[with_directions(scan) for scan in part] for part in SCANS]
    train(*scans, settings, "tiny", tmp_path / "out", CPU)
    training = read_card(str(tmp_path / "out" / "tiny.json")).training
    progress = training["progress"]
    total = progress["validation_l1"] + 0.1 * progress["validation_tensor"] + progress["validation_perceptual"]
    assert progress["validation_loss"] == pytest.approx(total, rel=1e-4)
    assert training["loss"]["perceptual"] == {"weights": file_sha256(first), "weight": 1.0, "layer": "3_4"}
    elsewhere = first.rename(tmp_path / "elsewhere.pth")
    moved = dataclasses.replace(
        settings, loss=dataclasses.replace(settings.loss, perceptual=Perceptual(str(elsewhere), 1.0))
    )
    train(*scans, moved, "tiny", tmp_path / "out", CPU, resume=tmp_path / "out")
    with pytest.raises(WeightsFileError, match="no such file"):
        train(*scans, settings, "tiny", tmp_path / "none", CPU)


def with_directions(scan):
    """A scan with six directions instead of two."""
    data = np.concatenate([scan.data[:1], *[scan.data[1:] for _ in range(3)]])
    directions = np.vstack([np.zeros(3), spread_directions(6)])
    return dataclasses.replace(
        scan,
        data=data,
        shells=np.array([0] + [1] * 6),
        gradients=np.column_stack([[0.0] + [1000.0] * 6, directions]),
    )


def test_it_stops_when_nothing_is_gained_and_the_best_weights_are_kept(tmp_path):
    trained(changed(learning_rate=0.3, warmup_steps=0, validate_every=2, max_steps=40, patience=2), tmp_path)
    lines = (tmp_path / "log" / "run-1" / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    validated = [float(row["validation/loss"]) for row in rows if row["validation/loss"]]
    best = int(np.argmin(validated))
    assert len(validated) == best + 3 < 20
    card = read_card(str(tmp_path / "tiny.json"))
    assert card.training["progress"]["steps"] == 2 * (best + 1)
    assert card.training["progress"]["validation_loss"] == pytest.approx(min(validated))
    assert card.training["weights"] == "those of the best validation"


def test_the_last_step_is_validated_and_written_though_it_is_between_two_validations(tmp_path):
    trained(changed(max_steps=8), tmp_path)
    assert read_card(str(tmp_path / "tiny.json")).training["progress"]["steps"] == 8


def test_a_frozen_encoder_stays_as_it_is(finished, tmp_path):
    tuned = trained(changed(max_steps=3, freeze_encoder=True), tmp_path, initial=start_of(finished))
    for key, before in finished[1].items():
        assert torch.equal(tuned[key], before) == key.startswith("encoder"), key
    training = read_card(str(tmp_path / "tiny.json")).training
    assert training["optimization"]["freeze_encoder"] is True
    assert training["started_from"]["progress"]["steps"] == 18


@pytest.mark.parametrize(
    "other",
    [{"normalization": "b0"}, {"inputs": ("volume", "b0")}, {"model": {**SETTINGS.model, "hidden": 8}}],
    ids=["normalization", "inputs", "width"],
)
def test_weights_of_another_architecture_are_no_beginning(finished, tmp_path, other):
    with pytest.raises(TrainingDataError, match="another architecture"):
        trained(dataclasses.replace(SETTINGS, **other), tmp_path, initial=start_of(finished))
    assert not list(tmp_path.rglob("*.safetensors"))


DIFFUSION = {"features": 4, "levels": 1, "deviation": 0.3}


@pytest.mark.parametrize(
    ("architecture", "before", "now", "told"),
    [
        ("csr_dmri", {**SETTINGS.model, "residual": False}, SETTINGS.model, "residual False instead of True"),
        ("ddpm3d", DIFFUSION, DIFFUSION | {"schedule": "cosine"}, "schedule linear instead of cosine"),
        ("ddpm3d", DIFFUSION | {"deviation": 0.2}, DIFFUSION, "deviation 0.2 instead of 0.3"),
    ],
)
def test_weights_that_would_fit_but_mean_something_else_are_no_beginning(tmp_path, architecture, before, now, told):
    source = build_model(architecture, before, 3)
    card = ModelCard("other", "", architecture, arguments=before)
    patches = dataclasses.replace(SETTINGS.patches, points=0)
    settings = dataclasses.replace(SETTINGS, architecture=architecture, model=now, patches=patches)
    with pytest.raises(TrainingDataError, match=f"--init-from other: it is of another architecture: {told}"):
        trained(settings, tmp_path, initial=(source, card))


def test_what_a_network_leaves_unsaid_and_how_it_is_drawn_from_may_differ():
    for architecture, before, now in (
        ("srcnn3d", {"kernels": [9, 1, 5]}, {}),
        ("csr_dmri", TINY, {**TINY, "guided": False, "spread": True, "features": 8}),
        ("ddpm3d", DIFFUSION, DIFFUSION | {"schedule": "linear", "steps": 5, "samples": 2, "seed": 1, "spread": True}),
    ):
        _check_kind(*(ModelCard("some", "", architecture, arguments=arguments) for arguments in (before, now)))


def test_one_subject_is_enough_to_tune_the_shipped_model(tmp_path):
    """A few steps from `light` on one scan, with few points: the loss on another scan of that kind falls."""
    light = load_settings("light", {"precision": "32-true", "learning_rate": 1e-3, "warmup_steps": 0, "batch_size": 2})
    settings = dataclasses.replace(light, patches=dataclasses.replace(light.patches, patch=8, border=1, points=128))
    start = load_model("light", torch.device("cpu"))
    losses = []
    for steps in (1, 8):
        given = changed(settings, max_steps=steps, validate_every=steps, validation_examples=8)
        train(*SCANS, given, "tuned", tmp_path / str(steps), CPU, initial=start)
        card = read_card(str(tmp_path / str(steps) / "tuned.json"))
        losses.append(card.training["progress"]["validation_loss"])
    assert losses[1] < losses[0]
    assert card.training["started_from"]["weights_sha256"] == start[1].weights_sha256
    tuned = load_file(tmp_path / "8" / "tuned.safetensors")
    assert all(not torch.equal(tuned[key], before) for key, before in start[0].state_dict().items() if key in tuned)
    assert set(start[0].state_dict()) - set(tuned) == {"spread.weight", "spread.bias"}


def test_a_training_that_diverges_is_ended_and_writes_nothing(tmp_path):
    with pytest.raises(TrainingDataError, match="step 6: the loss is not a number any more"):
        trained(changed(learning_rate=1e30, warmup_steps=0), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors")) + list(tmp_path.rglob("*.ckpt"))


def test_hardware_that_is_not_there_is_refused(tmp_path):
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA device"):
            train(*SCANS, SETTINGS, "tiny", tmp_path, Hardware("cuda"))
    with pytest.raises(TrainingDataError, match="needs a GPU"):
        trained(changed(precision="16-mixed"), tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingDataError, match="cannot be written to") as caught:
        trained(SETTINGS, tmp_path / "file")
    assert "\n" not in str(caught.value)


# Guided by a T1w

GUIDED = dataclasses.replace(
    SETTINGS,
    model=SETTINGS.model | {"guided": True},
    patches=dataclasses.replace(SETTINGS.patches, guide=FAITHFUL, t1w_dropped=0.3),
)


def with_its_truth_as_t1w(scan):
    """All volumes are one image, and the T1w is that image."""
    image = scan.data[0] / scan.data[0].max()
    data = np.repeat(scan.data[:1], len(scan.data), axis=0)
    means = np.repeat(scan.means[:1], len(scan.means), axis=0)
    return dataclasses.replace(scan, data=data, means=means, t1w=image)


def test_a_t1w_that_is_the_truth_helps(tmp_path):
    """It is learned what it shows; and without it the same weights do no harm."""
    torch.set_num_threads(1)
    scans, validation = ([with_its_truth_as_t1w(scan) for scan in some] for some in SCANS)
    settings = changed(GUIDED, max_steps=100, validate_every=100, batch_size=4)
    train(scans, validation, settings, "tiny", tmp_path, CPU)
    model, card = load_model(str(tmp_path / "tiny.json"), torch.device("cpu"))
    assert card.training["scans_with_t1w"] == 1
    errors = {}
    for name, dropped in (("guided", 0.0), ("alone", 1.0)):
        patches = dataclasses.replace(settings.patches, t1w_dropped=dropped)
        batch = PatchStream(validation, patches, settings.signal, seed=9, batch_size=12).batch(0)
        errors[name] = (model(batch.channels, batch.points, batch.cell, batch.guide) - batch.truth).square().mean()
        untrained = build_model("csr_dmri", dict(settings.model), 3)
        errors[name + " untrained"] = (untrained(*batch[:3], batch.guide) - batch.truth).square().mean()
    assert errors["guided"] < 0.5 * errors["alone"]
    assert errors["alone"] < 1.05 * errors["alone untrained"]


def test_guidance_can_begin_with_a_network_that_had_none(finished, tmp_path):
    torch.set_num_threads(1)
    (tmp_path / "guided").mkdir()
    options = changed(GUIDED, max_steps=1, warmup_steps=0, learning_rate=1e-12)
    weights = trained(options, tmp_path / "guided", initial=start_of(finished))
    plain, _ = start_of(finished)
    guided, card = load_model(str(tmp_path / "guided" / "tiny.json"), torch.device("cpu"))
    assert card.training["started_from"]["scans"] == ["sub-01"]
    assert weights["filter.weight"].shape[0] == 27
    channels, points, cell = torch.rand(1, 11, 5, 5, 5), torch.rand(1, 50, 3) * 4, torch.full((1, 3), 0.5)
    torch.testing.assert_close(
        guided(channels, points, cell, torch.rand(1, 50, 28)),
        plain(channels[:, :3], points, cell),
        atol=1e-5,
        rtol=1e-5,
    )


def test_a_training_can_begin_with_a_model_that_tells_its_uncertainty(finished, tmp_path):
    plain, card = start_of(finished)
    arguments = {**card.arguments, "spread": True}
    uncertain = build_model("csr_dmri", arguments, 3)
    uncertain.load_state_dict(plain.state_dict(), strict=False)
    start = uncertain, dataclasses.replace(card, arguments=arguments)
    options = changed(max_steps=1, warmup_steps=0, learning_rate=1e-12)
    weights = trained(options, tmp_path, initial=start)
    assert "spread.weight" not in weights
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(weights[name], value)
