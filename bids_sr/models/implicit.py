"""Values at any point of a feature map: trilinear lookup, coordinates, and the decoder that reads both."""

from typing import Literal, cast

import torch
from torch import Tensor, nn

Coordinates = Literal["cell", "grid"]


def trilinear_corners(points: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The eight voxels around each point, and their trilinear weights.

    Parameters
    ----------
    points : Tensor, (Q, 3)
        Voxel coordinates, index i being the centre of voxel i; beyond the outermost centres the border value holds.
    shape : tuple of int, (3,)
        Voxels per axis.

    Returns
    -------
    indices : Tensor of int64, (Q, 8)
        Positions in the grid flattened with the last axis fastest.
    weights : Tensor, (Q, 8)
        They sum to one.
    """
    voxels = torch.tensor(shape, device=points.device)
    clamped = torch.minimum(points.clamp(min=0), (voxels - 1).to(points.dtype))
    low = torch.minimum(clamped.long(), (voxels - 2).clamp(min=0))
    strides = torch.tensor((shape[1] * shape[2], shape[2], 1), device=points.device)
    # On an axis of one voxel, the upper neighbour is the voxel itself.
    steps = torch.cartesian_prod(*(torch.stack([n * 0, n]) for n in strides * (voxels > 1))).sum(dim=1)
    u, v, w = (clamped - low).T.contiguous()
    pairs = ((1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v)
    weights = torch.stack([pair * share for pair in pairs for share in (1 - w, w)], dim=1)
    return (low * strides).sum(dim=1, keepdim=True) + steps, weights


def lookup(rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows: (V, F) rows, (Q, 8) indices and weights, to (Q, F).

    A gather of rows, which on a CPU costs a fraction of what `grid_sample` does.
    """
    return nn.functional.embedding_bag(indices, rows, mode="sum", per_sample_weights=weights.to(rows.dtype))


def coordinate_channels(points: Tensor, cell: Tensor, shape: tuple[int, int, int], kind: Coordinates) -> Tensor:
    """What the decoder is told about where a point lies.

    Parameters
    ----------
    points : Tensor, (Q, 3)
        Voxel coordinates in the encoded grid.
    cell : Tensor, (3,) or (Q, 3)
        Edge lengths of a target voxel, in voxels of the encoded grid.
    shape : tuple of int, (3,)
        The encoded grid.
    kind : {"cell", "grid"}
        "cell": position inside the nearest voxel in [-1, 1] and log2 of the scale, per axis, (Q, 6); the result does
        not depend on where the grid was cropped (Chen et al. 2021). "grid": position in the whole grid in [-1, 1],
        (Q, 3), as in Wu et al. 2024.
    """
    if kind == "grid":
        return 2 * (points + 0.5) / torch.tensor(shape, device=points.device, dtype=points.dtype) - 1
    relative = 2 * (points - (points + 0.5).floor())
    return torch.cat([relative, -torch.log2(cell).expand_as(relative)], dim=1)


class ImplicitDecoder(nn.Module):
    """Fully connected layers from a feature and a coordinate to an intensity (Wu et al. 2024, section 2.3).

    Parameters
    ----------
    channels : int
        Features plus coordinates. The paper's: 128 + 3.
    hidden : int
        Width of the hidden layers. The paper's: 256.
    stages : int
        Groups of three hidden layers; each but the last ends as wide as the input and is added to it. The paper's: 2.
    zero_head : bool
        Start with an output of zero, so that a residual network starts at interpolation.

    Notes
    -----
    The paper's activation after the last layer is left out: with it the network is constant, and its gradient zero, for
    a third of the random starts. Signals are clamped at zero when they are written.
    """

    def __init__(self, channels: int, hidden: int = 256, stages: int = 2, zero_head: bool = False) -> None:
        super().__init__()
        widths = [channels] * (stages - 1) + [1]
        self.stages = nn.ModuleList(self._stage(channels, hidden, width) for width in widths)
        if zero_head:
            self._silence(self.stages[-1])

    @staticmethod
    def _silence(stage: nn.Module) -> None:
        """Set the last layer of a stage to zero."""
        for parameter in list(stage.parameters())[-2:]:
            nn.init.zeros_(parameter)

    @staticmethod
    def _stage(channels: int, hidden: int, out: int) -> nn.Sequential:
        """Three hidden layers and a last one, with an activation between."""
        return nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, out),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(Q, channels) to (Q,)."""
        return self.head(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """(Q, channels) to what the last layer reads, (Q, hidden)."""
        for stage in self.stages[:-1]:
            x = x + torch.relu(stage(x))
        return self._last[:-1](x)

    def head(self, hidden: Tensor) -> Tensor:
        """What the last layer makes of (Q, hidden): (Q,)."""
        return self._last[-1](hidden).squeeze(-1)

    @property
    def _last(self) -> nn.Sequential:
        """The layers of the last stage."""
        return cast(nn.Sequential, self.stages[-1])
