"""Continuous super-resolution of diffusion MRI: an RDN encoder with an implicit decoder (Wu et al. 2024)."""

import torch
from torch import Tensor

from bids_sr.models.base import Encoded, Lattice, TrainableModel, grid_shape
from bids_sr.models.implicit import Coordinates, ImplicitDecoder, coordinate_channels, lookup, trilinear_corners
from bids_sr.models.rdn import ResidualDenseNetwork

#: Below this magnification (20 % finer voxels) the correction fades out: a grid that asks for nothing new gets the
#: input.
FULL_CORRECTION_LOG2_SCALE = 0.263
#: Queries that the decoder answers at once in training.
CHUNK = 4096


class CsrDmri(TrainableModel):
    """Encoder and decoder of CSR-dMRI, with the options that make it restore well.

    Parameters
    ----------
    channels : int
        Input channels; channel 0 is the volume to restore.
    features, growth, blocks, layers, feature_channels : int
        The encoder, see `ResidualDenseNetwork`.
    hidden, stages : int
        The decoder, see `ImplicitDecoder`.
    coordinates : {"cell", "grid"}
        See `coordinate_channels`.
    residual : bool
        Correct the trilinearly interpolated input instead of giving the intensity itself; the head starts at zero.

    Notes
    -----
    The defaults are the paper's: 5,920,512 parameters in the encoder, 364,676 in the decoder.
    """

    def __init__(
        self,
        channels: int = 2,
        features: int = 64,
        growth: int = 64,
        blocks: int = 8,
        layers: int = 3,
        feature_channels: int = 128,
        hidden: int = 256,
        stages: int = 2,
        coordinates: Coordinates = "grid",
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.coordinates: Coordinates = coordinates
        self.residual = residual
        self.encoder = ResidualDenseNetwork(channels, features, growth, blocks, layers, feature_channels)
        n_coordinates = 6 if coordinates == "cell" else 3
        self.decoder = ImplicitDecoder(feature_channels + n_coordinates, hidden, stages, zero_head=residual)
        self.radius = self.encoder.radius + 1
        #: Values per encoded voxel that are held at once when it runs without gradients.
        self.live = self.encoder.live + feature_channels + 1

    def forward(self, channels: Tensor, points: Tensor, cell: Tensor) -> Tensor:
        """Intensities of a batch of patches, see `TrainableModel`."""
        shape = grid_shape(channels)
        rows = self._rows(channels)
        corners, weights = trilinear_corners(points.flatten(0, 1), shape)
        # The rows of all patches are one table: patch n begins at row n * voxels.
        first = torch.arange(len(channels), device=corners.device) * rows.shape[1]
        corners = corners + first.repeat_interleave(points.shape[1])[:, None]
        found = lookup(rows.flatten(0, 1), corners, weights)
        cells = cell.repeat_interleave(points.shape[1], dim=0)
        # On a CPU, layer after layer of all queries would not stay in the cache: 20 % slower than these parts.
        size = CHUNK if found.device.type == "cpu" else len(found)
        parts = zip(found.split(size), points.flatten(0, 1).split(size), cells.split(size), strict=True)
        decoded = [self._decode(features, where, sizes, shape) for features, where, sizes in parts]
        return torch.cat(decoded).unflatten(0, points.shape[:2])

    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """Read volumes, (N, C, h, w, d); the volume itself is kept as the last feature, the lattice plays no part."""
        return Encoded(self._rows(channels), grid_shape(channels))

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """Intensities, (N, Q), at points, (Q, 3), the same for each of the N volumes."""
        corners = trilinear_corners(points, encoded.shape)
        found = (lookup(rows, *corners) for rows in encoded.rows)
        return torch.stack([self._decode(features, points, cell, encoded.shape) for features in found])

    def _rows(self, channels: Tensor) -> Tensor:
        """Features of each voxel, and the volume itself as the last one, (N, h * w * d, F + 1), in full precision.

        In bfloat16, which training may compute in, the weights of a lookup do not add up to one.
        """
        features = self.encoder(channels.contiguous(memory_format=torch.channels_last_3d))
        kept = torch.cat([features.float(), channels[:, :1].float()], dim=1)
        return kept.permute(0, 2, 3, 4, 1).flatten(1, 3).contiguous()

    def _decode(self, found: Tensor, points: Tensor, cell: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Intensities, (Q,), from what was found at points, (Q, 3); `cell` may differ per point, (Q, 3)."""
        coordinates = coordinate_channels(points, cell, shape, self.coordinates).to(found.dtype)
        decoded = self.decoder(torch.cat([found[:, :-1], coordinates], dim=1))
        if not self.residual:
            return decoded
        scale = (-torch.log2(cell)).amax(dim=-1)
        strength = (scale / FULL_CORRECTION_LOG2_SCALE).clamp(0, 1)
        return found[:, -1] + strength * decoded
