"""The convolutions of VGG19, by whose features slices of volumes are compared; weights come from a file of the user."""

import pickle
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bids_sr.errors import WeightsFileError

#: A layer by its block and the convolution in it, as papers name it.
Layer = Literal["1_2", "2_2", "3_4", "4_4", "5_4"]
#: Features of the convolutions of each block; a block begins where the one before was pooled.
BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
#: Mean and standard deviation of the colours of the pictures that VGG learned from.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg19(nn.Module):
    """The 16 convolutions of VGG19 (Simonyan and Zisserman 2015, configuration E), each with a ReLU.

    Their places are those of torchvision's `vgg19().features`, so its files fit.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in = 3
        for block in BLOCKS:
            for features in block:
                layers += [nn.Conv2d(n_in, features, 3, padding=1), nn.ReLU()]
                n_in = features
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, slices: Tensor, layer: Layer = "5_4") -> Tensor:
        """Features, (N, F, h', w'), after a layer's ReLU, of grey slices, (N, 1, h, w): 0 is black and 1 is white.

        A slice that is too small to be pooled once more gives what is known by then.
        """
        hidden = (slices - self.mean) / self.deviation
        for stage in islice(self.features, _depth(layer)):
            if isinstance(stage, nn.MaxPool2d) and min(hidden.shape[2:]) < 2:
                hidden = nn.functional.max_pool2d(hidden, 2, ceil_mode=True)
            else:
                hidden = stage(hidden)
        return hidden


def _depth(layer: Layer) -> int:
    """Stages up to a layer's ReLU: two for each convolution, one for each pooling before."""
    block, number = map(int, layer.split("_"))
    return 2 * (sum(map(len, BLOCKS[: block - 1])) + number) + block - 1


def load_vgg(file: Path) -> Vgg19:
    """VGG19 with the weights of a file, frozen.

    Parameters
    ----------
    file : Path
        Weights of torchvision's `vgg19` or of its `features`: safetensors, or what `torch.save` wrote of a state
        dictionary. Nothing in it is executed. Layers that are not convolutions are passed over.

    Raises
    ------
    WeightsFileError
        If it cannot be read, or holds the weights of something else.
    """
    with torch.device("meta"):
        network = Vgg19()
    wanted = network.state_dict()
    found = {name if name.startswith("features.") else f"features.{name}": value for name, value in _read(file).items()}
    for name, value in wanted.items():
        if name not in found or found[name].shape != value.shape:
            has = f"has shape {tuple(found[name].shape)}" if name in found else "is not there"
            raise WeightsFileError(path=file, problem=f"{name} {has}, and has {tuple(value.shape)} in VGG19")
    network = Vgg19()
    network.load_state_dict({name: found[name].float() for name in wanted})
    return network.eval().requires_grad_(False)


def _read(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a file."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        reason = "not readable as weights" if file.is_file() else "no such file"
        raise WeightsFileError(path=file, problem=reason) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsFileError(path=file, problem="it is not a state dictionary")
    return content


def slices_of(volumes: Tensor) -> Iterator[Tensor]:
    """The slices of volumes, (N, x, y, z), across each of the three axes: (N * x, 1, y, z) and so on."""
    for order in ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2)):
        yield volumes.permute(order).flatten(0, 1).unsqueeze(1)
