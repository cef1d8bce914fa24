"""Convolutional networks behind the interface of the models that answer at any point."""

import math

import numpy as np
import torch
from torch import Tensor

from bids_sr.models.base import Encoded, Lattice, TrainableModel, grid_shape
from bids_sr.models.convolutional import (
    DCSRN,
    MDCSRN,
    SRCNN3D,
    VDSR3D,
    ConvolutionalNetwork,
    InterpolatedRDN,
    ResCNN3D,
    UNet3D,
)
from bids_sr.models.diffusion import DDPM3D
from bids_sr.models.interpolation import SPLINE_RADIUS, encode_splines, query_splines
from bids_sr.models.transformer import Swin3D
from bids_sr.splines import spline_weights

#: Networks by their names in cards and presets.
NETWORKS: dict[str, type[ConvolutionalNetwork]] = {
    "dcsrn": DCSRN,
    "rescnn3d": ResCNN3D,
    "rdn": InterpolatedRDN,
    "srcnn3d": SRCNN3D,
    "vdsr3d": VDSR3D,
    "mdcsrn": MDCSRN,
    "unet3d": UNet3D,
    "swin3d": Swin3D,
    "ddpm3d": DDPM3D,
}


class GridNetwork(TrainableModel):
    """A network on a fixed fine grid: volumes are interpolated to it first, and the result is interpolated from it.

    Parameters
    ----------
    network : ConvolutionalNetwork
    scale : float, optional
        Fine voxels per encoded voxel along each axis, cells aligned: the grid that the network was trained for. What is
        asked for between its voxels is interpolated by cubic B-splines, as Wu et al. (2024) did at other scales. If not
        given, the network runs on the very grid that is asked for.

    Raises
    ------
    ValueError
        If the scale is below 1.
    """

    def __init__(self, network: ConvolutionalNetwork, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None and scale < 1:
            raise ValueError(f"scale {scale:g} is below 1")
        self.network = network
        self.scale = scale
        self.radius = math.ceil((network.radius + SPLINE_RADIUS) / (scale or 1)) + SPLINE_RADIUS

    def forward(self, channels: Tensor, points: Tensor, cell: Tensor) -> Tensor:
        """Intensities of a batch of patches; the points of each are the voxels of its fine grid, last axis fastest.

        Raises
        ------
        ValueError
            If the fine grids of the patches differ, or the points are not as many as their voxels.
        """
        return self.network(on_fine_grid(channels, points, cell)).flatten(1)

    def compared(
        self, channels: Tensor, points: Tensor, cell: Tensor, truth: Tensor, guide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the loss compares, as the network says; for the points see `forward`."""
        return self.network.compared(on_fine_grid(channels, points, cell), truth)

    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """Read volumes, (N, C, h, w, d): the network runs on fine voxels that fill their grid, slab by slab."""
        nodes, shape = working_grid(grid_shape(channels), lattice, self.scale)
        axes = zip(nodes.origin, nodes.cell, shape, strict=True)
        positions = [torch.from_numpy(origin + cell * np.arange(n))[None] for origin, cell, n in axes]
        fine = self.network.restore(interpolate(channels, positions), first_voxel(nodes, lattice))
        rows = encode_splines(fine.flatten(0, 1))[..., 0].unflatten(0, fine.shape[:2])
        return Encoded(rows.transpose(1, 2), shape, nodes)

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """Spline values of the fine grid, (N, Q), at points, (Q, 3); at its voxels those that the network gave."""
        return self._values(encoded, points, 0)

    def query_with_deviations(
        self, encoded: Encoded, points: Tensor, cell: Tensor, guide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Intensities and their standard deviations, (N, Q) each; see `bids_sr.models.base.UncertainModel`.

        Raises
        ------
        ValueError
            If the network does not tell them.
        """
        if encoded.rows.shape[2] < 2:
            raise ValueError("this network does not tell its uncertainty")
        # Between voxels, a spline may swing below zero.
        return self._values(encoded, points, 0), self._values(encoded, points, 1).clamp(min=0)

    @staticmethod
    def _values(encoded: Encoded, points: Tensor, column: int) -> Tensor:
        """Spline values of one column of the rows, (N, Q), at points, (Q, 3)."""
        nodes = encoded.lattice or Lattice((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        origin, step = (points.new_tensor(values) for values in (nodes.origin, nodes.cell))
        chosen = Encoded(encoded.rows[..., column : column + 1], encoded.shape)
        return query_splines(chosen, (points - origin) / step)


def on_fine_grid(channels: Tensor, points: Tensor, cell: Tensor) -> Tensor:
    """Patches, (N, C, h, w, d), interpolated to their fine grids: (N, C, n, n, n).

    Parameters
    ----------
    channels : Tensor, (N, C, h, w, d)
    points : Tensor, (N, Q, 3)
        The voxels of the fine grid of each patch, last axis fastest.
    cell : Tensor, (N, 3)
        Size of a fine voxel.

    Raises
    ------
    ValueError
        If the fine grids of the patches differ, or the points are not as many as their voxels.
    """
    shape = fine_shape(channels, cell)
    if points.shape[1] != math.prod(shape):
        raise ValueError(f"{points.shape[1]} points for a fine grid of {shape}: a grid network needs all of them")
    grid = points.unflatten(1, shape)
    return interpolate(channels, [grid[:, :, 0, 0, 0], grid[:, 0, :, 0, 1], grid[:, 0, 0, :, 2]])


def fine_shape(channels: Tensor, cell: Tensor) -> tuple[int, int, int]:
    """Fine voxels per axis of patches, (N, C, h, w, d), whose target voxels span `cell`, (N, 3), of theirs.

    Raises
    ------
    ValueError
        If they differ between patches.
    """
    size = torch.tensor(grid_shape(channels), device=cell.device)
    counts = (size / cell).round().int().unique(dim=0).tolist()
    if len(counts) > 1:
        raise ValueError("a grid network needs one scale per batch")
    height, width, depth = counts[0]
    return height, width, depth


def working_grid(
    shape: tuple[int, int, int], lattice: Lattice, scale: float | None
) -> tuple[Lattice, tuple[int, int, int]]:
    """The fine voxels that fill an encoded grid.

    Parameters
    ----------
    shape : tuple of int, (3,)
        The encoded grid.
    lattice : Lattice
        What will be asked for.
    scale : float or None
        Fine voxels per encoded voxel; the voxels of the lattice if None.

    Returns
    -------
    nodes : Lattice
        Its origin is the first fine voxel.
    fine_shape : tuple of int, (3,)
    """
    axes = [_fine_axis(*axis, scale) for axis in zip(shape, lattice.origin, lattice.cell, strict=True)]
    origins, cells, counts = zip(*axes, strict=True)
    return Lattice(origins, cells), counts


def first_voxel(nodes: Lattice, lattice: Lattice) -> tuple[int, int, int]:
    """Number of the first fine voxel along each axis, counted from the first point of the lattice.

    On the voxels of the lattice it is the place in the target grid, whatever part of the scan is encoded.
    """
    axes = zip(nodes.origin, lattice.origin, nodes.cell, strict=True)
    first, second, third = (round((own - theirs) / cell) for own, theirs, cell in axes)
    return first, second, third


def _fine_axis(n: int, origin: float, cell: float, scale: float | None) -> tuple[float, float, int]:
    """First position, distance and number of the fine voxels whose centres lie in [-1/2, n - 1/2]."""
    if scale is not None:
        return (1 / scale - 1) / 2, 1 / scale, math.ceil(n * scale - 1e-6)
    first = math.ceil((-0.5 - origin) / cell - 1e-3)
    last = math.floor((n - 0.5 - origin) / cell + 1e-3)
    return origin + first * cell, cell, max(1, last - first + 1)


def interpolate(channels: Tensor, positions: list[Tensor]) -> Tensor:
    """Cubic B-spline interpolation of volumes on regular grids.

    Parameters
    ----------
    channels : Tensor, (N, C, h, w, d)
    positions : list of Tensor, (3,), each (N, n) or (1, n)
        Where to evaluate along each axis, in voxels.

    Returns
    -------
    fine : Tensor, (N, C, n, n, n)
        Always in full precision.
    """
    products = ("nax,ncxyz->ncayz", "nay,ncxyz->ncxaz", "naz,ncxyz->ncxya")
    fine = channels.float()
    with torch.autocast(channels.device.type, enabled=False):
        for axis, (where, product) in enumerate(zip(positions, products, strict=True)):
            rows = where.double().cpu().numpy()
            weights = np.stack([spline_weights(row, channels.shape[2 + axis]) for row in rows])
            fine = torch.einsum(product, torch.from_numpy(weights).to(fine.device), fine)
    return fine
