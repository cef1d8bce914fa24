"""Networks that sharpen a volume that was interpolated to the fine grid before."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from bids_sr.models.rdn import ResidualDenseNetwork, convolution
from bids_sr.models.slabs import Sliceable, run_in_slabs


class ConvolutionalNetwork(nn.Module):
    """A network from volumes, (N, C, h, w, d), to one volume on the same grid, (N, 1, h, w, d).

    Attributes
    ----------
    radius : int
        How many voxels around a voxel can change its result.
    live : int
        Values per voxel that are held at once when it runs without gradients, the convolutions' own copies included.
    alignment : int
        A part of a volume gives what the volume gives if it begins at a multiple of this along each axis.
    density : float
        How often a weight is used per voxel on average; less than once where it runs on coarser grids.
    """

    radius: int
    live: int
    alignment: int = 1
    density: float = 1.0

    @property
    def sliced(self) -> Sliceable:
        """What runs slab by slab when a whole volume is restored."""
        return self

    def restore(self, volumes: Tensor, first: tuple[int, int, int] = (0, 0, 0)) -> Tensor:
        """What it gives of volumes of any size, (N, C, h, w, d), slab by slab.

        Parameters
        ----------
        volumes : Tensor, (N, C, h, w, d)
        first : tuple of int, (3,)
            Number of their first voxel along each axis, counted from one that is the same for all parts of a scan.

        Returns
        -------
        restored : Tensor, (N, 1, h, w, d)
            (N, 2, h, w, d) with the standard deviations, if it tells its uncertainty.
        """
        return run_in_slabs(self.sliced, volumes)

    def compared(self, volumes: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """What the loss compares in training, (N, Q) each; see `bids_sr.models.base.TrainableModel.compared`.

        Parameters
        ----------
        volumes : Tensor, (N, C, h, w, d)
        truth : Tensor, (N, Q)
            At the voxels of the volumes, last axis fastest.
        """
        return self(volumes).flatten(1), truth


def silenced(layer: nn.Conv3d) -> nn.Conv3d:
    """The layer with all weights zero: a network whose correction it gives begins by correcting nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def rectified(n_in: int, n_out: int, size: int = 3) -> nn.Sequential:
    """A convolution and a ReLU, begun so that signals pass many of them neither shrunk nor grown (He et al. 2015)."""
    layer = convolution(n_in, n_out, size)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.ReLU(inplace=True))


def dense_unit(n_in: int, growth: int) -> nn.Sequential:
    """Batch normalization, ELU and convolution; the ELU overwrites what the normalization gave."""
    return nn.Sequential(nn.BatchNorm3d(n_in), nn.ELU(inplace=True), nn.Conv3d(n_in, growth, 3, padding=1, bias=False))


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
        self.units = nn.ModuleList(dense_unit(width, growth) for width in widths[:-1])
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
            silenced(self.dense.out)
        self.radius = self.dense.radius
        self.live = self.dense.live

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvolutionalNetwork`."""
        result = self.dense(x)
        return x[:, :1] + result if self.residual else result


class ConvolutionalChain(ConvolutionalNetwork):
    """Convolutions and ReLUs one after the other, whose result corrects the first channel; it begins at zero.

    Parameters
    ----------
    channels : int
        Input channels.
    widths : sequence of int
        Features of all convolutions but the last, which gives one.
    kernels : sequence of int
        Edges of all convolutions, odd.

    Raises
    ------
    ValueError
        If there is no width, they are not one kernel more than widths, or a kernel is even.
    """

    def __init__(self, channels: int, widths: Sequence[int], kernels: Sequence[int]) -> None:
        super().__init__()
        if not widths:
            raise ValueError("a chain of convolutions has two and more")
        if len(kernels) != len(widths) + 1 or not all(size % 2 for size in kernels):
            raise ValueError(f"kernels {list(kernels)}: {len(widths) + 1} odd numbers are needed")
        sizes = zip(pairwise([channels, *widths]), kernels[:-1], strict=True)
        hidden = (rectified(n_in, n_out, size) for (n_in, n_out), size in sizes)
        self.layers = nn.Sequential(*hidden, silenced(convolution(widths[-1], 1, kernels[-1])))
        self.radius = sum(size // 2 for size in kernels)
        # What a convolution reads and what it gives, and copies of both in another layout.
        self.live = 2 * max(n_in + n_out for n_in, n_out in pairwise([channels, *widths]))

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvolutionalNetwork`."""
        return x[:, :1] + self.layers(x)


class SRCNN3D(ConvolutionalChain):
    """The three layers of SRCNN (Dong et al. 2014) in three dimensions (Pham et al. 2017), with a residual result.

    Parameters
    ----------
    channels : int
        Input channels; the result is added to the first.
    features, mapping : int
        Features of the first and of the second convolution. The paper's: 64, 32.
    kernels : sequence of int, (3,)
        Edges of the convolutions. Those of the paper are 9, 1, 5; three of 3 see less and have as many weights.

    Notes
    -----
    With one channel, the defaults have 52,801 parameters, and 57,985 with kernels of 3.
    """

    def __init__(
        self, channels: int, features: int = 64, mapping: int = 32, kernels: Sequence[int] = (9, 1, 5)
    ) -> None:
        super().__init__(channels, (features, mapping), kernels)


class VDSR3D(ConvolutionalChain):
    """VDSR (Kim et al. 2016) in three dimensions: many small convolutions and a residual result.

    Parameters
    ----------
    channels : int
        Input channels; the result is added to the first.
    features : int
        Width. The paper's: 64.
    layers : int
        Convolutions. The paper's: 20.

    Notes
    -----
    With one channel, the defaults have 1,995,329 parameters.
    """

    def __init__(self, channels: int, features: int = 64, layers: int = 20) -> None:
        super().__init__(channels, [features] * (layers - 1), [3] * layers)


class DenseBlock(nn.Module):
    """Densely connected units; the result are the features that they add."""

    def __init__(self, width: int, growth: int, units: int) -> None:
        super().__init__()
        self.width = width
        self.units = nn.ModuleList(dense_unit(width + index * growth, growth) for index in range(units))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w, d) to (N, units * growth, h, w, d)."""
        for unit in self.units:
            x = torch.cat([x, unit(x)], dim=1)
        return x[:, self.width :]


class MDCSRN(ConvolutionalNetwork):
    """Multi-level densely connected network (Chen et al. 2018b), without its discriminator, with a residual result.

    Parameters
    ----------
    channels : int
        Input channels; the result is added to the first.
    growth : int
        Features of a unit; the first convolution, and what each block reads, have twice as many. The paper's: 16.
    blocks, units : int
        Densely connected blocks, and units of batch normalization, ELU and convolution in each. The paper's: 4, 4.

    Notes
    -----
    All blocks before it and the first convolution are fused by a 1x1x1 convolution to what a block reads, and all of
    them to the result. What a block read is such a sum already, so only its new features are kept: the same functions,
    with fewer weights. For batch normalization see `DCSRN`.

    Raises
    ------
    ValueError
        If there is no block.
    """

    def __init__(self, channels: int, growth: int = 16, blocks: int = 4, units: int = 4) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks = {blocks} is not positive")
        widths = [2 * growth + index * units * growth for index in range(blocks + 1)]
        self.first = convolution(channels, 2 * growth)
        self.fusions = nn.ModuleList(convolution(width, 2 * growth, 1) for width in widths[1:-1])
        self.blocks = nn.ModuleList(DenseBlock(2 * growth, growth, units) for _ in range(blocks))
        self.last = silenced(convolution(widths[-1], 1, 1))
        self.radius = blocks * units + 1
        # What was known before the last block; and what the block and its last unit read (three times) and what that
        # gives, or the block's features and all that is known then.
        read = (1 + units) * growth
        self.live = widths[-2] + max(3 * read + 4 * growth, read + growth + widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvolutionalNetwork`."""
        known = self.first(x)
        known = torch.cat([known, self.blocks[0](known)], dim=1)
        for fusion, block in zip(self.fusions, self.blocks[1:], strict=True):
            known = torch.cat([known, block(fusion(known))], dim=1)
        return x[:, :1] + self.last(known)


def reach_of_u_nets(levels: int, count: int = 1) -> int:
    """How many voxels around a voxel can change its result, after so many U-Nets of two convolutions on each way."""
    farthest = 0
    for voxel in range(2 ** (levels - 1)):
        low = high = voxel
        for _ in range(count):
            for _ in range(levels - 1):
                low, high = (low - 2) // 2, (high + 2) // 2
            low, high = low - 2, high + 2
            for _ in range(levels - 1):
                low, high = 2 * low - 2, 2 * high + 3
        farthest = max(farthest, voxel - low, high - voxel)
    return farthest


class UNet3D(ConvolutionalNetwork):
    """A U-Net in three dimensions (Cicek et al. 2016) with a residual result.

    Parameters
    ----------
    channels : int
        Input channels; the result is added to the first.
    features : int
        Width on the finest grid, doubled on each coarser one.
    levels : int
        Grids, each half as fine as the one before.

    Notes
    -----
    Two convolutions on each grid on the way down and on the way up, largest of 2^3 voxels between, transposed
    convolutions back. A grid of any shape will do: a coarse voxel at its end may hold one fine voxel instead of two.
    There is no normalization: its statistics would be those of the whole volume, and intensities have a meaning here.

    Coarse voxels are counted from the volume's first, so the network is not blind to a shift by less than `alignment`.

    Raises
    ------
    ValueError
        If there is no level.
    """

    def __init__(self, channels: int, features: int = 32, levels: int = 3) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels = {levels} is not positive")
        widths = [features * 2**level for level in range(levels)]
        self.down = nn.ModuleList(self._pair(n_in, n_out) for n_in, n_out in pairwise([channels, *widths]))
        self.finer = nn.ModuleList(nn.ConvTranspose3d(2 * width, width, 2, stride=2) for width in widths[:-1])
        self.up = nn.ModuleList(self._pair(2 * width, width) for width in widths[:-1])
        self.last = silenced(convolution(features, 1, 1))
        self.alignment = 2 ** (levels - 1)
        self.radius = reach_of_u_nets(levels)
        # On the finest grid: what is passed on, beside what was raised, what a convolution gives of both, and copies.
        self.live = 7 * features
        self.density = self._density()

    @staticmethod
    def _pair(n_in: int, n_out: int) -> nn.Sequential:
        """Two convolutions, each with its ReLU."""
        return nn.Sequential(rectified(n_in, n_out), rectified(n_out, n_out))

    def _density(self) -> float:
        """Uses of a weight per finest voxel: one for each voxel that it writes; that raises, for each that it reads."""
        stages = [(level, stage) for stages in (self.down, self.up) for level, stage in enumerate(stages)]
        stages += [(level + 1, stage) for level, stage in enumerate(self.finer)] + [(0, self.last)]
        counts = [(sum(p.numel() for p in stage.parameters() if p.dim() > 1), 8**-level) for level, stage in stages]
        return sum(count * share for count, share in counts) / sum(count for count, _ in counts)

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvolutionalNetwork`."""
        return x[:, :1] + self.last(self.hidden(x, lambda _, read: read))

    def hidden(self, x: Tensor, enter: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Features on the finest grid, (N, features, h, w, d).

        `enter` is given what each stage is to read, and the stage's number, and gives what it reads: the stages on the
        way down come first, the finest at their beginning, then those on the way up, the finest at their end.
        """
        hidden, passed = x, []
        for level, stage in enumerate(self.down):
            hidden = stage(enter(level, nn.functional.max_pool3d(hidden, 2, ceil_mode=True) if level else hidden))
            passed.append(hidden)
        passed.pop()
        stages = zip(reversed(self.finer), reversed(self.up), strict=True)
        for number, (finer, stage) in enumerate(stages, len(self.down)):
            hidden = stage(enter(number, self._joined(passed.pop(), finer(hidden))))
        return hidden

    @staticmethod
    def _joined(fine: Tensor, raised: Tensor) -> Tensor:
        """Features of one grid side by side; what was raised from a coarser one may be a voxel too large."""
        height, width, depth = fine.shape[2:]
        return torch.cat([fine, raised[:, :, :height, :width, :depth]], dim=1)
