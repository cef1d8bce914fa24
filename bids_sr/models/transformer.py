"""Attention in windows of a volume between convolutions: a network on the fine grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bids_sr.models.convolutional import ConvolutionalNetwork, silenced
from bids_sr.models.rdn import convolution

Shape = tuple[int, int, int]

#: Voxels whose windows are computed at once: few enough that they stay in the processor's cache; on a GPU, many enough
#: to fill it.
VOXELS_AT_ONCE, GPU_VOXELS_AT_ONCE = 2**12, 2**17
#: A convolution in a list of steps, where a window layer is given by its shift.
CONVOLUTION = -1


@dataclass(frozen=True)
class Windows:
    """Which voxels of a volume share a window, (W windows of n voxels).

    Attributes
    ----------
    voxels : Tensor of int32, (W, n)
        Number of each voxel in the volume, last axis fastest. Where a window reaches beyond the volume, any voxel.
    regions : Tensor of uint8, (W, n)
        Voxels of a window see each other if they have the same number.
    mixed : Tensor of bool, (W,)
        Whether a window has several such regions; always on the CPU.
    places : Tensor of int32, (h * w * d,)
        Where each voxel of the volume lies in the windows, all of them one after the other.
    """

    voxels: Tensor
    regions: Tensor
    mixed: Tensor
    places: Tensor


@lru_cache(maxsize=4)
def windows_of(shape: Shape, edge: int, shift: int, device: torch.device) -> Windows:
    """The windows of `edge` voxels along each axis that cover a volume, one of which begins at voxel `shift`.

    Windows that the volume does not fill see what there is of it. With a shift, its first and its last voxels come
    from one window, as if it were a ring, and do not see each other (Liu et al. 2021, figure 4).
    """
    axes = [_ring(length, edge, shift) for length in shape]
    order = [positions.reshape(-1, edge) for positions, _ in axes]
    voxels = _in_windows([np.minimum(p, n - 1) for p, n in zip(order, shape, strict=True)], shape)
    regions = _in_windows([regions.reshape(-1, edge) for _, regions in axes], (3, 3, 3))
    beyond = _in_windows([(p >= n).astype(np.int64) for p, n in zip(order, shape, strict=True)], (2, 2, 2)) > 0
    places = np.empty(math.prod(shape), np.int32)
    places[voxels[~beyond]] = np.flatnonzero(~beyond.reshape(-1))
    mixed = (regions != regions[:, :1]).any(axis=1)
    # What is made in inference mode could not take part in a training later.
    with torch.inference_mode(mode=False):
        return Windows(
            torch.from_numpy(voxels.astype(np.int32)).to(device),
            torch.from_numpy(regions.astype(np.uint8)).to(device),
            torch.from_numpy(mixed),
            torch.from_numpy(places).to(device),
        )


def _ring(length: int, edge: int, shift: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions along an axis, filled up to whole windows, from `shift` on; and what belongs together: 0, 1, or 2."""
    filled = -(-length // edge) * edge
    positions = (np.arange(filled) + shift) % filled
    return positions, np.where(positions >= length, 2, np.where(positions < shift, 0, 1))


def _in_windows(axes: Sequence[NDArray[np.int64]], sizes: Shape) -> NDArray[np.int64]:
    """Numbers of grid points in windows, (W, n), from their positions in the windows of each axis, (W_axis, edge)."""
    first, second, third = axes
    numbers = first[:, None, None, :, None, None] * sizes[1] + second[None, :, None, None, :, None]
    numbers = numbers * sizes[2] + third[None, None, :, None, None, :]
    return numbers.reshape(-1, first.shape[1] * second.shape[1] * third.shape[1])


class WindowAttention(nn.Module):
    """Attention of the voxels of a window to each other, with a bias for their relative position (Liu et al. 2021).

    It is softmax(q k / sqrt(d) + b) v, their eq. 4, in each of the heads.

    Parameters
    ----------
    features, heads, edge : int
        Width, heads that share it, and voxels along each axis of a window.
    """

    offsets: Tensor

    def __init__(self, features: int, heads: int, edge: int) -> None:
        super().__init__()
        self.heads = heads
        self.read = nn.Linear(features, 3 * features)
        self.give = nn.Linear(features, features)
        self.bias = nn.Parameter(0.02 * torch.randn((2 * edge - 1) ** 3, heads))
        self.register_buffer("offsets", relative_positions(edge), persistent=False)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """(B, n, features) to the same shape; `seen`, (B, n, n), tells who sees whom, which are all if not given."""
        queries, keys, values = self.read(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias[self.offsets].permute(2, 0, 1).to(queries.dtype)
        if seen is not None:
            bias = bias.masked_fill(~seen[:, None], -math.inf)
        found = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        return self.give(found.transpose(1, 2).flatten(2))


def relative_positions(edge: int) -> Tensor:
    """Number of the offset between any two voxels of a window, (n, n), of the (2 edge - 1)^3 that there are."""
    axis = np.arange(edge)
    places = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    offsets = places[:, None] - places[None] + edge - 1
    return torch.from_numpy(offsets @ np.array([(2 * edge - 1) ** 2, 2 * edge - 1, 1]))


class WindowLayer(nn.Module):
    """Attention in windows and two linear layers, each after a normalization and added to its input (Liu et al. 2021).

    Parameters
    ----------
    features, heads, edge : int
        See `WindowAttention`.
    shift : int
        Where windows begin: at this voxel, and every `edge` voxels.
    """

    def __init__(self, features: int, heads: int, edge: int, shift: int) -> None:
        super().__init__()
        self.edge, self.shift = edge, shift
        self.before = nn.LayerNorm(features)
        self.attention = WindowAttention(features, heads, edge)
        self.between = nn.LayerNorm(features)
        self.mixing = nn.Sequential(nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features))

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, h, w, d) to the same shape."""
        shape = (x.shape[2], x.shape[3], x.shape[4])
        windows = windows_of(shape, self.edge, self.shift, x.device)
        size = max(1, (VOXELS_AT_ONCE if x.device.type == "cpu" else GPU_VOXELS_AT_ONCE) // self.edge**3)
        rows = x.permute(0, 2, 3, 4, 1).flatten(1, 3)
        parts = zip(windows.voxels.split(size), windows.regions.split(size), windows.mixed.split(size), strict=True)
        done = [self._windows(rows, voxels, regions if mixed.any() else None) for voxels, regions, mixed in parts]
        return torch.cat(done, dim=1)[:, windows.places].unflatten(1, shape).permute(0, 4, 1, 2, 3)

    def _windows(self, rows: Tensor, voxels: Tensor, regions: Tensor | None) -> Tensor:
        """What comes of some windows, (N, W * n, features), whose voxels are among the rows, (N, h * w * d, features).

        Everything between two convolutions happens inside a window.
        """
        x = rows[:, voxels].flatten(0, 1)
        seen = None if regions is None else (regions[:, :, None] == regions[:, None]).repeat(len(rows), 1, 1)
        x = x + self.attention(self.before(x), seen)
        x = x + self.mixing(self.between(x))
        return x.unflatten(0, (len(rows), -1)).flatten(1, 2)


class WindowGroup(nn.Module):
    """Window layers, every other one shifted by half a window, and a convolution, added to their input.

    The residual Swin transformer block of Liang et al. (2021, eq. 5), in three dimensions.
    """

    def __init__(self, features: int, layers: int, heads: int, edge: int) -> None:
        super().__init__()
        shifts = (edge // 2 * (index % 2) for index in range(layers))
        self.layers = nn.Sequential(*(WindowLayer(features, heads, edge, shift) for shift in shifts))
        self.convolution = convolution(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, h, w, d) to the same shape."""
        return x + self.convolution(self.layers(x))


class Swin3D(ConvolutionalNetwork):
    """SwinIR (Liang et al. 2021) in three dimensions and light: shifted windows between convolutions, residual.

    Parameters
    ----------
    channels : int
        Input channels; the result is added to the first.
    features : int
        Width.
    groups, layers : int
        Groups that end with a convolution, and window layers in each.
    heads : int
        Of the attention; they share the features.
    window : int
        Voxels of a window along each axis, even.

    Notes
    -----
    A convolution before the groups and one after them, whose result is added to what the first gave, and one to the
    correction, which begins at zero. SwinIR normalizes once more before the last but one; windows of 8 x 8 pixels are
    here 4 x 4 x 4 voxels, as many. With two channels the defaults have 837,281 parameters, four fifths of them in
    convolutions.

    Windows are counted from the volume's first voxel, so the network is not blind to a shift by less than `alignment`.
    Intensities are normalized per voxel, over features, so nothing depends on what lies beyond the `radius`.

    Raises
    ------
    ValueError
        If there is no group or layer, the window is odd, or the heads cannot share the features.
    """

    def __init__(
        self, channels: int, features: int = 64, groups: int = 4, layers: int = 2, heads: int = 4, window: int = 4
    ) -> None:
        super().__init__()
        if groups < 1 or layers < 1:
            raise ValueError(f"groups = {groups}, layers = {layers}: one and more are needed")
        if window < 2 or window % 2:
            raise ValueError(f"window = {window} is not an even number")
        if heads < 1 or features % heads:
            raise ValueError(f"{features} features cannot be shared by {heads} heads")
        self.first = convolution(channels, features)
        self.groups = nn.Sequential(*(WindowGroup(features, layers, heads, window) for _ in range(groups)))
        self.smooth = convolution(features, features)
        self.last = silenced(convolution(features, 1))
        group = [*(window // 2 * (index % 2) for index in range(layers)), CONVOLUTION]
        self.radius = reach([CONVOLUTION, *group * groups, CONVOLUTION, CONVOLUTION], window)
        self.alignment = window
        # What the first convolution gave, what a group and its layer read, what comes of the layer, in two orders.
        self.live = 5 * features
        self.density = self._density(groups * layers, features, window)

    def _density(self, n_layers: int, features: int, window: int) -> float:
        """Multiply-adds per voxel and weight: the biases are looked up, and voxels of a window are multiplied twice."""
        weights = {name: p.numel() for name, p in self.named_parameters() if p.dim() > 1}
        used = sum(count for name, count in weights.items() if not name.endswith("attention.bias"))
        return (used + n_layers * 2 * window**3 * features) / sum(weights.values())

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvolutionalNetwork`."""
        first = self.first(x)
        return x[:, :1] + self.last(first + self.smooth(self.groups(first)))


def reach(steps: Sequence[int], window: int) -> int:
    """How many voxels around a voxel can change its result, after convolutions of 3 voxels and layers of windows.

    Parameters
    ----------
    steps : sequence of int
        In their order: `CONVOLUTION`, or the shift of the windows of a layer.
    window : int
        Voxels of a window.
    """
    farthest = 0
    for voxel in range(window):
        low = high = voxel
        for step in reversed(steps):
            if step == CONVOLUTION:
                low, high = low - 1, high + 1
            else:
                low = (low - step) // window * window + step
                high = (high - step) // window * window + step + window - 1
        farthest = max(farthest, voxel - low, high - voxel)
    return farthest
