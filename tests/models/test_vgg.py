"""VGG19 is built as published, takes torchvision's weights, and nothing else."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bids_sr.errors import WeightsFileError
from bids_sr.models.registry import count_parameters
from bids_sr.models.vgg import MEAN, Vgg19, load_vgg, slices_of
from tests.made_models import save_narrow_vgg
from tests.training.trainings import assert_equal

#: Of torchvision's `vgg19().features`.
PLACES = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Vgg19().eval()


def test_it_has_the_sixteen_convolutions_as_published(network):
    convolutions = [index for index, layer in enumerate(network.features) if isinstance(layer, nn.Conv2d)]
    assert convolutions == PLACES
    assert list(network.state_dict()) == [f"features.{place}.{part}" for place in PLACES for part in ("weight", "bias")]
    # 143,667,240 with its three dense layers of 25,088, 4,096, 4,096 and 1,000.
    dense = (25_088 + 1) * 4_096 + (4_096 + 1) * 4_096 + (4_096 + 1) * 1_000
    assert count_parameters(network) == 143_667_240 - dense


def test_layers_are_named_by_block_and_convolution(network):
    slices = torch.rand(1, 1, 32, 32)
    for layer, features, size in (("1_2", 64, 32), ("2_2", 128, 16), ("3_4", 256, 8), ("4_4", 512, 4), ("5_4", 512, 2)):
        found = network(slices, layer)
        assert found.shape == (1, features, size, size)
        assert found.min() == 0
    expected = network.features[:4]((slices - network.mean) / network.deviation)
    torch.testing.assert_close(network(slices, "1_2"), expected)


def test_grey_slices_are_put_to_it_as_photographs_were(network):
    """A grey of the mean of a colour is zero in that colour."""
    seen = []
    hook = network.features[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(torch.full((1, 1, 4, 4), MEAN[1]), "1_2")
    hook.remove()
    assert seen[0].shape == (1, 3, 4, 4)
    assert seen[0][0, 1].abs().max() < 1e-6 < seen[0][0, 0].abs().max()


@pytest.mark.parametrize("shape", [(1, 1), (3, 20), (17, 5)])
def test_slices_may_be_small(network, shape):
    assert network(torch.rand(2, 1, *shape)).shape[:2] == (2, 512)


def test_weights_are_read_from_either_kind_of_file(monkeypatch, tmp_path):
    """With or without the name of the stack before them, beside layers that are no convolutions."""
    saved = torch.load(save_narrow_vgg(monkeypatch, tmp_path), weights_only=True)
    bare = {name.removeprefix("features."): value.double() for name, value in saved.items()}
    torch.save(bare | {"classifier.0.weight": torch.zeros(3)}, tmp_path / "bare.pth")
    save_file(saved, tmp_path / "vgg19.safetensors")
    for name in ("vgg19.pth", "bare.pth", "vgg19.safetensors"):
        loaded = load_vgg(tmp_path / name)
        assert_equal(loaded.state_dict(), saved)
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_other_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    save_file({"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "grey.safetensors")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, problem in (
        ("nowhere.pth", "no such file"),
        ("nowhere.safetensors", "no such file"),
        ("text.pth", "not readable as weights"),
        ("text.safetensors", "not readable as weights"),
        ("list.pth", "not a state dictionary"),
        ("grey.safetensors", r"has shape \(64, 1, 3, 3\), and has \(64, 3, 3, 3\) in VGG19"),
        ("other.pth", r"features\.0\.weight is not there"),
    ):
        with pytest.raises(WeightsFileError, match=problem) as caught:
            load_vgg(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_what_is_in_a_file_is_not_executed(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"features.0.weight": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsFileError, match="not readable"):
        load_vgg(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


def test_slices_are_those_across_each_axis():
    volumes = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    across_x, across_y, across_z = slices_of(volumes)
    assert [tuple(part.shape) for part in (across_x, across_y, across_z)] == [(6, 1, 4, 5), (8, 1, 3, 5), (10, 1, 3, 4)]
    assert torch.equal(across_x[4, 0], volumes[1, 1])
    assert torch.equal(across_y[6, 0], volumes[1, :, 2])
    assert torch.equal(across_z[3, 0], volumes[0, :, :, 3])
