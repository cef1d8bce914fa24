"""A model is what its card says, or it is refused."""

import json

import pytest
import torch

from bids_sr.errors import ModelCardError, UnknownModelError, WeightsError
from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.registry import ModelCard, list_models, load_model, read_card, save_model

ARGUMENTS = {"channels": 3, "features": 4, "growth": 4, "blocks": 1, "layers": 1, "feature_channels": 4, "hidden": 4}
CPU = torch.device("cpu")


@pytest.fixture
def card_file(tmp_path):
    torch.manual_seed(0)
    save_model(CsrDmri(**ARGUMENTS), ModelCard("tiny", "For tests.", "csr_dmri", ARGUMENTS), tmp_path)
    return tmp_path / "tiny.json"


def test_what_was_saved_is_loaded(card_file):
    torch.manual_seed(0)
    saved = CsrDmri(**ARGUMENTS).state_dict()
    model, card = load_model(str(card_file), CPU)
    assert card.parameters == sum(value.numel() for value in saved.values())
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, saved[key])


def test_every_model_of_the_registry_loads():
    assert {"cubic", "light"} <= set(list_models())
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


@pytest.mark.parametrize(
    "change", [{"hidden": 8}, {"features": 0}, {"unheard": 1}], ids=["other width", "impossible", "unknown option"]
)
def test_a_card_of_another_architecture_is_refused(card_file, change):
    card = json.loads(card_file.read_text())
    card["arguments"] |= change
    card_file.write_text(json.dumps(card))
    with pytest.raises(WeightsError):
        load_model(str(card_file), CPU)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x"}', "\x80"])
def test_a_file_that_is_no_card_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelCardError):
        load_model(str(tmp_path / "x.json"), CPU)
