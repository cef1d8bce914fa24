"""Networks that tell restored patches from acquired ones, for adversarial training; no restoration needs them."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from bids_sr.models.rdn import convolution

#: Makes a normalization of so many features.
Normalization = Callable[[int], nn.Module]
#: Slope of a rectifier below zero.
SLOPE = 0.2


class Discriminator(nn.Module):
    """Convolutions that grow coarser, from patches, (N, 1, x, y, z), to scores: the higher, the more like acquired.

    A score has no bounds: losses know what to make of it. Patches of any shape will do.

    Parameters
    ----------
    layers : sequence of (int, int)
        Features of each convolution, and its stride.
    normalization : callable
        Of all convolutions but the first, whose input's level and contrast shall be seen.
    head : sequence of Module
        From the features of the last convolution, (N, F, x', y', z'), to scores, (N, 1) or (N, 1, x', y', z').
    """

    def __init__(
        self, layers: Sequence[tuple[int, int]], normalization: Normalization, head: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        n_in = 1
        for features, stride in layers:
            stages.append(nn.Conv3d(n_in, features, 3, stride=stride, padding=1))
            if n_in > 1:
                stages.append(normalization(features))
            stages.append(nn.LeakyReLU(SLOPE))
            n_in = features
        self.layers = nn.Sequential(*stages, *head)

    def forward(self, patches: Tensor) -> Tensor:
        """Scores, (N, S): of a patch as a whole, or of so many parts of it."""
        return self.layers(patches).flatten(1)


def srgan_discriminator(features: int, normalization: Normalization) -> Discriminator:
    """The discriminator of SRGAN (Ledig et al. 2017, fig. 4) in three dimensions: one score for a patch.

    Eight convolutions of 1, 1, 2, 2, 4, 4, 8 and 8 times `features`, each second one with a stride of 2. Patches are of
    any size here, so features are averaged over the patch before the two dense layers, which are of 16 times `features`
    and 1. The paper's width is 64.
    """
    layers = [(features * 2**level, stride) for level in range(4) for stride in (1, 2)]
    dense = nn.Linear(8 * features, 16 * features), nn.LeakyReLU(SLOPE), nn.Linear(16 * features, 1)
    return Discriminator(layers, normalization, [nn.AdaptiveAvgPool3d(1), nn.Flatten(), *dense])


def patch_discriminator(features: int, normalization: Normalization) -> Discriminator:
    """A discriminator of parts (Isola et al. 2017, sec. 3.2.2) in three dimensions: a score for every 23^3 voxels.

    Convolutions of 1, 2 and 4 times `features`, the first two with a stride of 2, and one to the scores. The paper's
    five with kernels of 4 would leave nothing of a patch of 16 voxels; these four have kernels of 3.
    """
    layers = [(features, 2), (2 * features, 2), (4 * features, 1)]
    return Discriminator(layers, normalization, [convolution(4 * features, 1)])


#: Discriminators by their names in presets.
DISCRIMINATORS: dict[str, Callable[[int, Normalization], Discriminator]] = {
    "srgan": srgan_discriminator,
    "patch": patch_discriminator,
}


def patch_normalization(features: int) -> nn.Module:
    """By the statistics of each patch (Ba et al. 2016), where the papers use those of a batch.

    A score is then one of its own patch, which a penalty on its gradient needs (Gulrajani et al. 2017, sec. 4), and
    a batch may be of one small patch.
    """
    return nn.GroupNorm(1, features)


def no_normalization(features: int) -> nn.Module:
    """None."""
    return nn.Identity()


def spectrally_normalized(network: nn.Module) -> nn.Module:
    """The network with each weight divided by an estimate of its largest singular value (Miyato et al. 2018).

    The estimate is refined by one power iteration whenever the network runs in training mode. The layers are those of
    `network`, which is changed.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv3d, nn.Linear)):
            spectral_norm(layer)
    return network
