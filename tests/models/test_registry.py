"""A model is what its card says, or it is refused."""

import errno
import json
from pathlib import Path

import pytest
import torch

from bids_sr.errors import ModelCardError, ModelWriteError, UnknownModelError, UntrainedModelError, WeightsError
from bids_sr.models.base import Lattice, Signal
from bids_sr.models.registry import (
    ModelCard,
    build_model,
    count_parameters,
    list_models,
    list_presets,
    load_model,
    read_card,
    save_model,
)
from tests.models.networks import SMALL

ARGUMENTS = {"features": 4, "growth": 4, "blocks": 1, "layers": 1, "feature_channels": 4, "hidden": 4}
GRID_ARGUMENTS = {"scale": 3, "features": 4, "blocks": 1, "layers": 1}
CPU = torch.device("cpu")


def tiny(architecture="csr_dmri", arguments=ARGUMENTS):
    torch.manual_seed(0)
    card = ModelCard("tiny", "For tests.", architecture, arguments, inputs=("volume", "b0"))
    return build_model(architecture, arguments, 2), card


@pytest.fixture
def card_file(tmp_path):
    save_model(*tiny(), tmp_path)
    return tmp_path / "tiny.json"


@pytest.fixture
def grid_card_file(tmp_path):
    save_model(*tiny("rescnn3d", GRID_ARGUMENTS), tmp_path)
    return tmp_path / "tiny.json"


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("csr_dmri", ARGUMENTS),
        ("rescnn3d", GRID_ARGUMENTS),
        ("rdn", {"features": 4, "growth": 4, "blocks": 1, "layers": 1, "residual": True}),
        *SMALL.items(),
    ],
)
def test_what_was_saved_is_loaded(tmp_path, architecture, arguments):
    saved, described = tiny(architecture, arguments)
    save_model(saved, described, tmp_path)
    model, card = load_model(str(tmp_path / "tiny.json"), CPU)
    assert card.parameters == count_parameters(saved)
    assert card.signal == described.signal
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, saved.state_dict()[key])
    assert not model.training


def test_a_network_keeps_the_layout_of_its_volumes():
    model, _ = load_model("light", CPU)
    maps = model.encoder(torch.rand(1, 3, 28, 28, 28).contiguous(memory_format=torch.channels_last_3d))
    assert maps.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_guided_model_is_told_from_its_card(tmp_path):
    arguments = ARGUMENTS | {"residual": True, "guided": True}
    save_model(*tiny(arguments=arguments), tmp_path)
    model, card = load_model(str(tmp_path / "tiny.json"), CPU)
    assert card.guided
    assert card.uses_t1w
    assert card.signal == Signal(("volume", "b0"), guided=True)
    assert model.filter is not None
    assert not read_card("light").uses_t1w


def test_every_model_of_the_registry_loads():
    assert {"cubic", "trilinear", "light"} <= set(list_models())
    for name in list_models():
        model, card = load_model(name, CPU)
        assert card.name == name
        assert model.radius > 0


def test_the_light_model_is_small_and_its_card_tells_its_making():
    card = read_card("light")
    assert card.parameters < 1_000_000
    assert card.training["scans"]
    assert not any("elition" in scan or "sag" in scan for scan in card.training["scans"])
    assert card.training["progress"]["steps"] == card.training["optimization"]["max_steps"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownModelError, match="cubic"):
        load_model("lite", CPU)


def test_changed_weights_are_refused(card_file):
    weights = card_file.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_model(str(card_file), CPU)


def test_absent_weights_are_named(card_file):
    card_file.with_suffix(".safetensors").unlink()
    with pytest.raises(WeightsError, match="no such file"):
        load_model(str(card_file), CPU)


def test_weights_of_another_size_are_refused(card_file):
    rewrite(card_file, lambda card: card["arguments"].update(hidden=8))
    with pytest.raises(WeightsError, match="another network"):
        load_model(str(card_file), CPU)


def test_weights_of_another_architecture_are_refused(card_file):
    rewrite(card_file, lambda card: card.update(architecture="dcsrn", arguments={}))
    with pytest.raises(WeightsError, match=r"another network than the card's \(dcsrn"):
        load_model(str(card_file), CPU)


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": {"features": -4}},
        {"arguments": {"unheard": 1}},
        {"arguments": {"channels": 2}},
        {"architecture": "unet"},
        {"architecture": "dcsrn", "arguments": {"scale": 0.5}},
        {"inputs": ["b0"]},
        {"normalization": "max"},
    ],
)
def test_a_card_of_no_network_is_refused(card_file, change):
    rewrite(card_file, lambda card: card.update(change))
    with pytest.raises(ModelCardError):
        load_model(str(card_file), CPU)


def rewrite(card_file, change):
    card = json.loads(card_file.read_text())
    change(card)
    card_file.write_text(json.dumps(card))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x"}', "\x80"])
def test_a_file_that_is_no_card_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelCardError):
        load_model(str(tmp_path / "x.json"), CPU)


def test_a_grid_network_may_be_run_on_the_grid_asked_for(grid_card_file):
    fixed, _ = load_model(str(grid_card_file), CPU)
    free, card = load_model(f"{grid_card_file}@target", CPU)
    assert card.name == "tiny@target"
    assert card.weights_sha256 == read_card(str(grid_card_file)).weights_sha256
    lattice, channels = Lattice((-0.25,) * 3, (0.5,) * 3), torch.rand(1, 2, 4, 4, 4)
    assert fixed.encode(channels, lattice).shape == (12, 12, 12)
    assert free.encode(channels, lattice).shape == (8, 8, 8)


def test_other_networks_know_no_fixed_grid(card_file):
    for name in ("cubic", str(card_file)):
        with pytest.raises(ModelCardError, match="networks on a fixed grid"):
            load_model(f"{name}@target", CPU)


@pytest.mark.parametrize("preset", sorted(set(list_presets()) - set(list_models())))
def test_a_preset_without_weights_says_how_to_train_it(preset):
    card = read_card(preset)
    assert card.weights_sha256 == ""
    assert card.parameters > 0
    with pytest.raises(UntrainedModelError, match=f"{preset} has no weights; train it: bids-sr-train fit") as caught:
        load_model(preset, CPU)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_the_published_network_is_a_preset_of_the_published_size():
    assert read_card("paper") == read_card("csr_dmri_paper")
    assert read_card("paper").parameters == 5_920_512 + 364_676
    assert read_card("paper").uses_t1w
    assert read_card("arssr").parameters == 6_283_460
    assert not read_card("arssr").uses_t1w


@pytest.mark.parametrize("failing", ["tiny.safetensors.partial", "tiny.json.partial"])
def test_a_full_disk_leaves_what_was_there(card_file, failing, monkeypatch):
    before = {path.name: path.read_bytes() for path in card_file.parent.iterdir()}
    write = Path.write_bytes

    def full(path, content):
        if path.name != failing:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ModelWriteError, match="No space left") as caught:
        save_model(*tiny("rescnn3d", GRID_ARGUMENTS), card_file.parent)
    assert caught.value.exit_code == 2
    assert {path.name: path.read_bytes() for path in card_file.parent.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ModelWriteError, match="taken"):
        save_model(*tiny(), tmp_path / "taken")
