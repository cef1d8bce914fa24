"""Networks that sharpen a volume that was interpolated to the fine grid before."""

import torch
from torch import Tensor, nn

from bids_sr.models.rdn import ResidualDenseNetwork, convolution


class ConvolutionalNetwork(nn.Module):
    """A network from volumes, (N, C, h, w, d), to one volume on the same grid, (N, 1, h, w, d).

    Attributes
    ----------
    radius : int
        How many voxels around a voxel can change its result.
    live : int
        Values per voxel that are held at once when it runs without gradients, the convolutions' own copies included.
    """

    radius: int
    live: int


class DCSRN(ConvolutionalNetwork):
    """Densely connected super-resolution network (Chen et al. 2018).

    Parameters
    ----------
    channels : int
        Input channels.
    first, growth : int
        Features of the first convolution, and of each unit. The paper's: 48, 24.
    units : int
        Densely connected units of batch normalization, ELU and convolution. The paper's: 4.

    Notes
    -----
    The defaults have 223,633 parameters. Batch normalization takes its statistics from the batch in training, and its
    running ones in evaluation: a batch of one volume is then as good as any.
    """

    def __init__(self, channels: int, first: int = 48, growth: int = 24, units: int = 4) -> None:
        super().__init__()
        widths = [first + i * growth for i in range(units + 1)]
        self.first = convolution(channels, first)
        self.units = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm3d(width), nn.ELU(inplace=True), nn.Conv3d(width, growth, 3, padding=1, bias=False)
            )
            for width in widths[:-1]
        )
        self.last = convolution(widths[-1], 1)
        self.radius = units + 2
        self.live = 3 * widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvolutionalNetwork`."""
        dense = self.first(x)
        for unit in self.units:
            dense = torch.cat([dense, unit(dense)], dim=1)
        return self.last(dense)


class ResCNN3D(ConvolutionalNetwork):
    """Residual convolutional network (Du et al. 2020).

    Parameters
    ----------
    channels : int
        Input channels; the result is added to the first.
    features : int
        Width. The paper's: 64.
    blocks, layers : int
        Residual blocks, and convolutions in each. The paper's: 3, 6.

    Notes
    -----
    The defaults have 1,995,329 parameters.
    """

    def __init__(self, channels: int, features: int = 64, blocks: int = 3, layers: int = 6) -> None:
        super().__init__()
        self.first = convolution(channels, features)
        self.blocks = nn.ModuleList(self._block(features, layers) for _ in range(blocks))
        self.last = convolution(features, 1)
        self.radius = blocks * layers + 2
        self.live = 6 * features

    @staticmethod
    def _block(features: int, layers: int) -> nn.Sequential:
        """Convolutions, each followed by a ReLU."""
        pairs = ((convolution(features, features), nn.ReLU(inplace=True)) for _ in range(layers))
        return nn.Sequential(*(layer for pair in pairs for layer in pair))

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvolutionalNetwork`."""
        first = torch.relu(self.first(x))
        hidden = first
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return x[:, :1] + self.last(hidden + first)


class InterpolatedRDN(ConvolutionalNetwork):
    """The encoder of CSR-dMRI on the fine grid, in the place of its decoder a convolution to one channel.

    Parameters
    ----------
    channels : int
        Input channels.
    features, growth, blocks, layers : int
        See `ResidualDenseNetwork`.
    residual : bool
        Add the result to the first channel; the last convolution then starts at zero.
    """

    def __init__(
        self,
        channels: int,
        features: int = 64,
        growth: int = 64,
        blocks: int = 8,
        layers: int = 3,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.dense = ResidualDenseNetwork(channels, features, growth, blocks, layers, out_channels=1)
        if residual:
            for parameter in self.dense.out.parameters():
                nn.init.zeros_(parameter)
        self.radius = self.dense.radius
        self.live = self.dense.live

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvolutionalNetwork`."""
        result = self.dense(x)
        return x[:, :1] + result if self.residual else result
