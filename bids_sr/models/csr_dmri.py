"""Continuous super-resolution of diffusion MRI: an RDN encoder with an implicit decoder (Wu et al. 2024)."""

import torch
from torch import Tensor, nn

from bids_sr.models.base import Encoded
from bids_sr.models.implicit import Coordinates, ImplicitDecoder, coordinate_channels, lookup, trilinear_corners
from bids_sr.models.rdn import ResidualDenseNetwork

#: Below this magnification (20 % finer voxels) the correction fades out: a grid that asks for nothing new gets the
#: input.
FULL_CORRECTION_LOG2_SCALE = 0.263


class CsrDmri(nn.Module):
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

    def encode(self, channels: Tensor) -> Encoded:
        """Read volumes, (N, C, h, w, d); the volume itself is kept as the last feature for the residual."""
        features = self.encoder(channels.contiguous(memory_format=torch.channels_last_3d))
        kept = torch.cat([features, channels[:, :1].to(features.dtype)], dim=1)
        height, width, depth = channels.shape[2:]
        return Encoded(kept.permute(0, 2, 3, 4, 1).flatten(1, 3).contiguous(), (height, width, depth))

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """Intensities, (N, Q), at points, (Q, 3), the same for each of the N volumes."""
        return torch.stack([self.query_one(rows, encoded.shape, points, cell) for rows in encoded.rows])

    def query_one(self, rows: Tensor, shape: tuple[int, int, int], points: Tensor, cell: Tensor) -> Tensor:
        """Intensities, (Q,), of one encoded volume, (h * w * d, F) rows; `cell` may differ per point, (Q, 3)."""
        found = lookup(rows, *trilinear_corners(points, shape))
        coordinates = coordinate_channels(points, cell, shape, self.coordinates).to(found.dtype)
        decoded = self.decoder(torch.cat([found[:, :-1], coordinates], dim=1))
        if not self.residual:
            return decoded
        scale = (-torch.log2(cell)).amax(dim=-1)
        strength = (scale / FULL_CORRECTION_LOG2_SCALE).clamp(0, 1)
        return found[:, -1] + strength * decoded
