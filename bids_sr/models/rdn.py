"""The residual dense network that turns a low-resolution volume into a feature map."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn


def convolution(n_in: int, n_out: int, size: int = 3) -> nn.Conv3d:
    """A 3-D convolution that keeps the grid."""
    return nn.Conv3d(n_in, n_out, size, padding=size // 2)


class PointwiseSum:
    """A sum of 1x1x1 convolutions of several maps, which are never concatenated.

    Each is added where the sum lies, as the matrix product that it is: with a map of its own for each product, the
    encoder of the light model took 8 % longer.

    Parameters
    ----------
    first : Tensor, (N, C, h, w, d)
        The sum begins with it, and is kept in its precision; it is not changed.
    bias : Tensor, (C,)
    """

    def __init__(self, first: Tensor, bias: Tensor) -> None:
        self._shape = first.shape
        self._rows = self._as_rows(first) + bias

    @staticmethod
    def _as_rows(maps: Tensor) -> Tensor:
        """Maps, (N, C, h, w, d), as (N * h * w * d, C)."""
        return maps.permute(0, 2, 3, 4, 1).flatten(0, 3)

    def add(self, maps: Tensor, weight: Tensor) -> None:
        """Add the convolution of maps, (N, channels, h, w, d), by a weight, (C, channels, 1, 1, 1)."""
        rows, factors = self._as_rows(maps), weight.flatten(1).T
        self._rows.addmm_(rows.to(self._rows.dtype), factors.to(self._rows.dtype))

    def total(self) -> Tensor:
        """(N, C, h, w, d)."""
        n, _, *grid = self._shape
        return self._rows.unflatten(0, (n, *grid)).permute(0, 4, 1, 2, 3)


class ResidualDenseBlock(nn.Module):
    """Densely connected convolutions, fused by a 1x1x1 one and added to the input (Zhang et al. 2018, eq. 5-8).

    A layer reads all maps before it. Concatenating them took a quarter of the time at the width of the light model; so
    each map goes through the weights that all later layers have for it, at once, and the layers are sums of what comes
    out.
    """

    def __init__(self, features: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(convolution(features + i * growth, growth) for i in range(layers))
        self.fusion = convolution(features + layers * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, h, w, d) to the same shape."""
        latest, first, bias = x, 0, torch.cat([cast(Tensor, layer.bias) for layer in self.layers])
        fused = PointwiseSum(x, cast(Tensor, self.fusion.bias))
        sums: list[Tensor] = []
        for index in range(len(self.layers)):
            weights = self._weights(self.layers[index:], first, latest)
            parts = nn.functional.conv3d(latest, weights, bias if index == 0 else None, padding=1)
            shares = parts.chunk(len(self.layers) - index, dim=1)
            sums = [own + share for own, share in zip(sums[1:], shares, strict=True)] if sums else list(shares)
            fused.add(latest, self._weights([self.fusion], first, latest))
            first += latest.shape[1]
            latest = torch.relu(sums[0])
        fused.add(latest, self._weights([self.fusion], first, latest))
        return fused.total()

    @staticmethod
    def _weights(layers: Iterable[nn.Module], first: int, read: Tensor) -> Tensor:
        """What layers weigh the maps `read` by, which are their inputs from number `first` on."""
        return torch.cat([cast(Tensor, layer.weight)[:, first : first + read.shape[1]] for layer in layers])


class ResidualDenseNetwork(nn.Module):
    """RDN without upsampling, in three dimensions (Zhang et al. 2018; as used by Wu et al. 2024, section 2.2).

    Parameters
    ----------
    channels : int
        Input channels.
    features, growth, blocks, layers : int
        Width, growth of a dense layer, number of blocks, dense layers per block. The paper's: 64, 64, 8, 3.
    out_channels : int
        Features per voxel of the result. The paper's: 128.
    """

    #: Slabs of a volume may begin anywhere, see `bids_sr.models.slabs.Sliceable`.
    alignment = 1

    def __init__(
        self,
        channels: int,
        features: int = 64,
        growth: int = 64,
        blocks: int = 8,
        layers: int = 3,
        out_channels: int = 128,
    ) -> None:
        super().__init__()
        self.shallow = convolution(channels, features)
        self.second = convolution(features, features)
        self.blocks = nn.ModuleList(ResidualDenseBlock(features, growth, layers) for _ in range(blocks))
        self.fusion = convolution(blocks * features, features, 1)
        self.smooth = convolution(features, features)
        self.out = convolution(features, out_channels)
        self.radius = 2 + blocks * layers + 2
        #: Values per voxel that are held at once when it runs without gradients: in a block (what it reads, the fused
        #: maps, sums and parts of sums), beside the first maps and the fused ones; or at the end.
        self.live = max(5 * features + (3 * layers - 1) * growth, 3 * features + 2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w, d) to (N, out_channels, h, w, d); each output voxel sees `radius` voxels around it."""
        shallow = self.shallow(x)
        hidden = self.second(shallow)
        # The 1x1x1 convolution over the concatenated blocks is a sum over blocks; summing at once spares a buffer of
        # blocks * features channels, 0.8 GB on a whole brain at the paper's size.
        fused = PointwiseSum(torch.zeros_like(hidden), cast(Tensor, self.fusion.bias))
        for block, weight in zip(self.blocks, self.fusion.weight.chunk(len(self.blocks), dim=1), strict=True):
            hidden = block(hidden)
            fused.add(hidden, weight)
        return self.out(self.smooth(fused.total()) + shallow)
