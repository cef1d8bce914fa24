"""A small network of every kind."""

import torch
from torch import nn

from bids_sr.models.convolutional import ConvolutionalNetwork
from bids_sr.models.grid import NETWORKS

#: Arguments by name.
SMALL = {
    "dcsrn": {"first": 6, "growth": 4, "units": 2},
    "rescnn3d": {"features": 4, "blocks": 1, "layers": 2},
    "rdn": {"features": 4, "growth": 4, "blocks": 1, "layers": 2},
    "srcnn3d": {"features": 6, "mapping": 4, "kernels": [5, 1, 3]},
    "vdsr3d": {"features": 6, "layers": 4},
    "mdcsrn": {"growth": 4, "blocks": 2, "units": 2},
    "unet3d": {"features": 4, "levels": 3},
    "swin3d": {"features": 4, "groups": 1, "layers": 2, "heads": 2},
    "ddpm3d": {"features": 4, "levels": 2, "steps": 3, "deviation": 0.05},
}


def small(name: str, channels: int = 2) -> ConvolutionalNetwork:
    """A small network as training would leave it: no layer is zero, and its statistics are those of some volumes."""
    torch.manual_seed(0)
    network = NETWORKS[name](channels, **SMALL[name])
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d) and not layer.weight.any():
            layer.reset_parameters()
    with torch.no_grad():
        network(torch.randn(2, channels, 6, 6, 6) * 3 + 1)
    return network.eval()
