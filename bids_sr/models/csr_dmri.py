"""Continuous super-resolution of diffusion MRI: an RDN encoder with an implicit decoder (Wu et al. 2024)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bids_sr.models.base import (
    GUIDE_CHANNELS,
    NEIGHBOURS,
    SUBPOSITIONS,
    Encoded,
    Lattice,
    TrainableModel,
    grid_shape,
)
from bids_sr.models.implicit import Coordinates, ImplicitDecoder, coordinate_channels, lookup, trilinear_corners
from bids_sr.models.rdn import ResidualDenseNetwork
from bids_sr.models.slabs import run_in_slabs

#: Below this magnification (20 % finer voxels) the correction fades out: a grid that asks for nothing new gets the
#: input.
FULL_CORRECTION_LOG2_SCALE = 0.263
#: Range of the logarithm of a standard deviation, in units of the level of the volume's shell.
LOG_DEVIATIONS = (-6.0, 1.0)
#: Queries that the decoder answers at once in training.
CHUNK = 4096


class CsrDmri(TrainableModel):
    """Encoder and decoder of CSR-dMRI, with the options that make it restore well.

    Parameters
    ----------
    channels : int
        Input channels, without those of a guiding T1w; channel 0 is the volume to restore.
    features, growth, blocks, layers, feature_channels : int
        The encoder, see `ResidualDenseNetwork`.
    hidden, stages : int
        The decoder, see `ImplicitDecoder`.
    coordinates : {"cell", "grid"}
        See `coordinate_channels`.
    residual : bool
        Correct the trilinearly interpolated input instead of giving the intensity itself; the head starts at zero.
    guided : bool
        Let the T1w take part at its own resolution; `residual` only. The encoder sees it at `SUBPOSITIONS` parts of
        each voxel, as channels after the others. The decoder sees it at the target voxels around the point, and it also
        filters it: it gives each of these voxels a weight, and what they differ by from the T1w at the encoded
        resolution is added to the correction, so weighted. The filter starts at zero.
    spread : bool
        Tell how uncertain each intensity is, see `query_with_deviations`; `residual` only. It is one more layer, which
        reads what the decoder's head reads and is fitted after everything else (`bids_sr.training.spread`).

    Raises
    ------
    ValueError
        If it shall be guided, or tell the uncertainty, without being residual.

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
        guided: bool = False,
        spread: bool = False,
    ) -> None:
        super().__init__()
        if (guided or spread) and not residual:
            raise ValueError("a network that is guided or tells its uncertainty must be residual")
        self.coordinates: Coordinates = coordinates
        self.residual = residual
        n_channels = channels + (SUBPOSITIONS if guided else 0)
        self.encoder = ResidualDenseNetwork(n_channels, features, growth, blocks, layers, feature_channels)
        n_decoded = feature_channels + (6 if coordinates == "cell" else 3) + (GUIDE_CHANNELS if guided else 0)
        self.decoder = ImplicitDecoder(n_decoded, hidden, stages, zero_head=residual)
        self.filter = _silent_layer(hidden, NEIGHBOURS) if guided else None
        self.spread = _silent_layer(hidden, 1) if spread else None
        self.radius = self.encoder.radius + 1
        #: Values per encoded voxel that are kept to be looked up.
        self.kept = feature_channels + (2 if guided else 1)

    def forward(self, channels: Tensor, points: Tensor, cell: Tensor, guide: Tensor | None = None) -> Tensor:
        """Intensities of a batch of patches, see `TrainableModel`; the guide is (N, Q, GUIDE_CHANNELS)."""
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
        guides = None if guide is None else guide.flatten(0, 1).split(size)
        decoded = [
            self.decode(features, where, sizes, shape, guides[index] if guides else None)[0]
            for index, (features, where, sizes) in enumerate(parts)
        ]
        return torch.cat(decoded).unflatten(0, points.shape[:2])

    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """Read volumes, (N, C, h, w, d), the T1w's parts last where it is guided; the lattice plays no part."""
        return Encoded(self._rows(channels), grid_shape(channels))

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor, guide: Tensor | None = None) -> Tensor:
        """Intensities, (N, Q), at points, (Q, 3), the same for each of the N volumes, as is their guide."""
        return self.read(encoded, points, cell, guide)[0]

    def query_with_deviations(
        self, encoded: Encoded, points: Tensor, cell: Tensor, guide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Intensities and their standard deviations, (N, Q) each; see `bids_sr.models.base.UncertainModel`."""
        if self.spread is None:
            raise ValueError("this network does not tell its uncertainty")
        intensities, hidden = self.read(encoded, points, cell, guide)
        logarithms = self.spread(hidden).squeeze(-1).clamp(*LOG_DEVIATIONS)
        # It does not fade out with the correction: a second acquisition would have noise of its own at scale 1 too.
        return intensities, logarithms.exp()

    def read(
        self, encoded: Encoded, points: Tensor, cell: Tensor, guide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Intensities, (N, Q), and what the decoder's last layers read, (N, Q, hidden)."""
        corners = trilinear_corners(points, encoded.shape)
        found = (lookup(rows, *corners) for rows in encoded.rows)
        decoded = [self.decode(features, points, cell, encoded.shape, guide) for features in found]
        return torch.stack([values for values, _ in decoded]), torch.stack([hidden for _, hidden in decoded])

    def _rows(self, channels: Tensor) -> Tensor:
        """What is looked up, (N, h * w * d, n), in full precision: features, the volume itself, the mean of the T1w.

        In bfloat16, which training may compute in, the weights of a lookup do not add up to one. The last is there
        where the network is guided.
        """
        features = run_in_slabs(self.encoder, channels)
        kept = [features.float(), channels[:, :1].float()]
        if self.filter is not None:
            kept.append(channels[:, -SUBPOSITIONS:].float().mean(dim=1, keepdim=True))
        return torch.cat(kept, dim=1).permute(0, 2, 3, 4, 1).flatten(1, 3).contiguous()

    def decode(
        self, found: Tensor, points: Tensor, cell: Tensor, shape: tuple[int, int, int], guide: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Intensities, (Q,), and what the last layers read, (Q, hidden), from what was found at points, (Q, 3).

        `cell` may differ per point, (Q, 3).
        """
        coordinates = coordinate_channels(points, cell, shape, self.coordinates).to(found.dtype)
        if self.filter is None:
            interpolated = found[:, -1]
            hidden = self.decoder.hidden(torch.cat([found[:, :-1], coordinates], dim=1))
            decoded = self.decoder.head(hidden)
        else:
            interpolated = found[:, -2]
            decoded, hidden = self._guided(self.filter, found, coordinates, guide)
        return (interpolated + _strength(cell) * decoded if self.residual else decoded), hidden

    def _guided(
        self, filtering: nn.Linear, found: Tensor, coordinates: Tensor, guide: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The correction, (Q,), with what the filter takes from the T1w; and what the last layers read."""
        if guide is None:
            guide = found.new_zeros(len(found), GUIDE_CHANNELS)
        hidden = self.decoder.hidden(torch.cat([found[:, :-2], coordinates, guide], dim=1))
        detail = (guide[:, :NEIGHBOURS] - found[:, -1:]) * guide[:, NEIGHBOURS:]
        return self.decoder.head(hidden) + (filtering(hidden) * detail).sum(dim=1), hidden


def _strength(cell: Tensor) -> Tensor:
    """How much of the correction is made for target voxels of size `cell`, (3,) or (Q, 3): () or (Q,)."""
    scale = (-torch.log2(cell)).amax(dim=-1)
    return (scale / FULL_CORRECTION_LOG2_SCALE).clamp(0, 1)


def _silent_layer(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer that gives zeros until it has learned something."""
    layer = nn.Linear(n_in, n_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def guided_weights(plain: Mapping[str, Tensor], guided: CsrDmri) -> dict[str, Tensor]:
    """Weights with which a guided network gives what a network without guidance gives, whatever the T1w.

    Parameters
    ----------
    plain : mapping
        Weights of a `CsrDmri` of the same size that is not guided.
    guided : CsrDmri
        It is not changed.

    Raises
    ------
    RuntimeError
        If the sizes differ.
    """
    weights = {}
    for name, own in guided.state_dict().items():
        weight = plain.get(name, torch.zeros_like(own))
        # What sees the T1w comes after what sees the rest.
        n_new = own.shape[1] - weight.shape[1] if own.dim() > 1 else 0
        weights[name] = torch.cat([weight, torch.zeros_like(own[:, :n_new])], dim=1) if n_new > 0 else weight
    return weights
