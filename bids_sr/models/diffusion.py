"""Diffusion: a network that learns to take noise away, and draws a correction of the interpolated volume from noise."""

import math
import zlib
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bids_sr.models.convolutional import ConvolutionalNetwork, UNet3D, reach_of_u_nets
from bids_sr.models.noise import voxel_noise
from bids_sr.models.slabs import Sliceable, run_in_slabs

#: Steps from a correction to noise (Ho et al. 2020).
STEPS = 1000
#: Numbers that tell the network the step.
EMBEDDING = 64
#: Largest correction that is believed while noise is taken away, in standard deviations.
LARGEST = 10.0
Schedule = Literal["linear", "cosine"]


def kept_signal(schedule: Schedule) -> NDArray[np.float64]:
    """Share of the variance of the signal that is left after each step, (STEPS,), the alpha-bar of the papers.

    Parameters
    ----------
    schedule : {"linear", "cosine"}
        The variance that a step adds grows linearly from 1e-4 to 0.02 (Ho et al. 2020, section 4); or the share falls
        like the square of a cosine, a step adding 0.999 at most (Nichol and Dhariwal 2021, eq. 17).

    Raises
    ------
    ValueError
        If there is no such schedule.
    """
    if schedule == "linear":
        added = np.linspace(1e-4, 0.02, STEPS)
    elif schedule == "cosine":
        share: NDArray[np.float64] = np.cos((np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * np.pi / 2) ** 2
        added = np.minimum(1 - share[1:] / share[:-1], 0.999)
    else:
        raise ValueError(f"schedule {schedule} is not one of linear, cosine")
    return np.asarray(np.cumprod(1 - added), np.float64)


def steps_taken(count: int) -> list[int]:
    """Those of the `STEPS` that are taken back, evenly spread from the last to the first.

    Raises
    ------
    ValueError
        If they are fewer than one or more than there are.
    """
    if not 1 <= count <= STEPS:
        raise ValueError(f"steps = {count} is not in 1 to {STEPS}")
    taken: list[int] = np.linspace(STEPS - 1, 0, count).round().astype(int).tolist()
    return taken


def without_noise(noisy: Tensor, noise: Tensor, kept: float, kept_next: float) -> Tensor:
    """One step back to the signal, without new noise (DDIM: Song et al. 2021, eq. 12 with sigma = 0).

    Parameters
    ----------
    noisy, noise : Tensor
        Signal with noise, and what is believed to be the noise, of unit variance.
    kept, kept_next : float
        See `kept_signal`: of what is given, and of the result; 1 for the signal itself.
    """
    signal = ((noisy - math.sqrt(1 - kept) * noise) / math.sqrt(kept)).clamp(-LARGEST, LARGEST)
    noise = (noisy - math.sqrt(kept) * signal) / math.sqrt(1 - kept)
    return math.sqrt(kept_next) * signal + math.sqrt(1 - kept_next) * noise


class NoisePredictor(nn.Module):
    """A U-Net that tells the noise in its first channel; the step scales and shifts what each of its stages reads.

    The U-Net gives v of Salimans and Ho (2022), from which the noise follows: where there is hardly any signal left,
    what is believed to be the signal errs then as much as the U-Net does, and not a hundred times as much. It begins
    with v = 0, which is right for signals that nothing is known of.

    Parameters
    ----------
    channels, features, levels : int
        See `UNet3D`.
    """

    def __init__(self, channels: int, features: int, levels: int) -> None:
        super().__init__()
        self.unet = UNet3D(channels, features, levels)
        widths = [features * 2**level for level in range(levels)]
        read = [channels, *widths[:-1], *(2 * width for width in reversed(widths[:-1]))]
        layers = (nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU())
        self.step = nn.Sequential(*layers)
        self.modulations = nn.ModuleList(nn.Linear(EMBEDDING, 2 * width) for width in read)
        self.radius, self.alignment = self.unet.radius, self.unet.alignment
        # Beside what the U-Net holds: what it is given, and what is kept between steps and draws.
        self.live = self.unet.live + channels + 4

    def forward(self, x: Tensor, steps: Tensor, kept: Tensor) -> Tensor:
        """The noise, (N, 1, h, w, d), in volumes, (N, C, h, w, d); steps and what they kept, (N,), as in `NoiseAt`."""
        step = self.step(waves(steps).to(self.unet.last.weight.dtype))

        def enter(number: int, read: Tensor) -> Tensor:
            scale, shift = self.modulations[number](step)[:, :, None, None, None].chunk(2, dim=1)
            return torch.addcmul(read + shift, read, scale)

        kept = kept[:, None, None, None, None]
        return (1 - kept).sqrt() * x[:, :1] + kept.sqrt() * self.unet.last(self.unet.hidden(x, enter))


def waves(steps: Tensor) -> Tensor:
    """Sines and cosines of numbers of steps, (N, EMBEDDING), of wavelengths from 2 pi on (Vaswani et al. 2017)."""
    half = EMBEDDING // 2
    frequencies = torch.exp(-math.log(1e4) / half * torch.arange(half, device=steps.device))
    angles = steps[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class NoiseAt:
    """A `NoisePredictor` at one step, as a network that runs in slabs.

    Parameters
    ----------
    predictor : NoisePredictor
    step : int
    kept : float
        Share of the signal that is left then, see `kept_signal`.
    """

    def __init__(self, predictor: NoisePredictor, step: int, kept: float) -> None:
        self.predictor, self.step, self.kept = predictor, step, kept
        self.radius, self.live, self.alignment = predictor.radius, predictor.live, predictor.alignment

    def __call__(self, volumes: Tensor) -> Tensor:
        """The noise, (N, 1, h, w, d), in the first channel of volumes, (N, C, h, w, d)."""
        steps = torch.full((len(volumes),), self.step, device=volumes.device)
        noise: Tensor = self.predictor(volumes, steps, torch.full_like(steps, self.kept, dtype=volumes.dtype))
        return noise


class DDPM3D(ConvolutionalNetwork):
    """A diffusion model of what interpolation lacks (Ho et al. 2020), given all channels (Saharia et al. 2021).

    Trained to tell the noise that was added to the true correction in one of `STEPS` steps. To restore, it begins with
    noise alone and takes it away in a few steps (Song et al. 2021): a draw from the corrections that are plausible,
    with their texture, where other networks give the mean of them. The mean of several draws comes close to that mean,
    and their standard deviation tells how uncertain it is.

    Parameters
    ----------
    channels : int
        Input channels; corrections are added to the first.
    features, levels : int
        Of the U-Net, see `UNet3D`.
    deviation : float
        Standard deviation of the true correction in training, in the units of the signal; it is divided by that.
    schedule : {"linear", "cosine"}
        See `kept_signal`.
    steps : int
        Steps taken to restore; each runs the network once.
    samples : int
        Draws whose mean is the result.
    seed : int
        Of the draws, not negative.
    spread : bool
        Tell the standard deviation of the draws.

    Notes
    -----
    Steps, samples, seed and spread may be changed after training. The noise that a draw begins with belongs to the
    place in the target grid (`bids_sr.models.noise`) and is the same for all volumes of a scan, so the result does not
    depend on slabs, threads, or the order of the volumes, and what a draw invents does not differ between directions
    of diffusion more than their signals do.

    There is no normalization in the U-Net: its statistics would be those of the whole volume.

    Raises
    ------
    ValueError
        If there is no level, step or draw, the schedule is unknown, the deviation not positive, the seed negative, or
        the spread asked for of one draw.
    """

    def __init__(
        self,
        channels: int,
        features: int = 24,
        levels: int = 3,
        deviation: float = 0.25,
        schedule: Schedule = "linear",
        steps: int = 20,
        samples: int = 1,
        seed: int = 0,
        spread: bool = False,
    ) -> None:
        super().__init__()
        if not deviation > 0:
            raise ValueError(f"deviation = {deviation} is not positive")
        if samples < 1 + spread:
            raise ValueError(f"samples = {samples}: {'the spread needs two and more' if spread else 'one is needed'}")
        if seed < 0:
            raise ValueError(f"seed = {seed} is negative")
        self.deviation, self.samples, self.seed, self.spread = deviation, samples, seed, spread
        self.kept, self.steps = kept_signal(schedule), steps_taken(steps)
        self.predictor = NoisePredictor(channels + 1, features, levels)
        self.radius = reach_of_u_nets(levels, steps)
        self.live, self.alignment = self.predictor.live, self.predictor.alignment
        # The layers that read the step are not run at each voxel; the others in each step of each draw.
        weights, run = (
            sum(p.numel() for p in part.parameters() if p.dim() > 1) for part in (self, self.predictor.unet)
        )
        self.density = steps * samples * self.predictor.unet.density * run / weights

    @property
    def sliced(self) -> Sliceable:
        """See `ConvolutionalNetwork`; a step needs what the one before it gave of the whole volume."""
        return NoiseAt(self.predictor, 0, float(self.kept[0]))

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvolutionalNetwork`."""
        return self.restore(x)[:, :1]

    def restore(self, volumes: Tensor, first: tuple[int, int, int] = (0, 0, 0)) -> Tensor:
        """See `ConvolutionalNetwork`."""
        mean, squares = torch.zeros_like(volumes[:, :1]), torch.zeros_like(volumes[:, :1])
        for number in range(self.samples):
            departure = self.draw(volumes, first, number) - mean
            mean = mean + departure / (number + 1)
            # Welford's sum of squares about the mean.
            squares = squares + departure.square() * (number / (number + 1))
        restored = volumes[:, :1] + self.deviation * mean
        if not self.spread:
            return restored
        return torch.cat([restored, self.deviation * (squares / (self.samples - 1)).sqrt()], dim=1)

    def draw(self, volumes: Tensor, first: tuple[int, int, int], number: int) -> Tensor:
        """A correction, (N, 1, h, w, d), in units of its standard deviation, that is plausible for volumes.

        Parameters
        ----------
        volumes : Tensor, (N, C, h, w, d)
        first : tuple of int, (3,)
            See `ConvolutionalNetwork.restore`.
        number : int
            Of the draw.
        """
        shape = (volumes.shape[2], volumes.shape[3], volumes.shape[4])
        noisy = voxel_noise(first, shape, self.seed, number).to(volumes).expand_as(volumes[:, :1])
        for step, following in zip(self.steps, [*self.steps[1:], None], strict=True):
            kept, kept_next = float(self.kept[step]), 1.0 if following is None else float(self.kept[following])
            noise = run_in_slabs(NoiseAt(self.predictor, step, kept), torch.cat([noisy, volumes], dim=1))
            noisy = without_noise(noisy, noise.to(noisy.dtype), kept, kept_next)
        return noisy

    def compared(self, volumes: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The noise that it sees in the true corrections, and the noise that was added (Ho et al. 2020, eq. 14).

        Noise and steps are a function of the truth, so a batch has the same whenever it is seen.
        """
        correction = (truth.view_as(volumes[:, 0]) - volumes[:, 0])[:, None] / self.deviation
        random = torch.Generator().manual_seed(zlib.crc32(truth.detach().cpu().numpy().tobytes()))
        steps = torch.randint(STEPS, (len(volumes),), generator=random)
        noise = torch.randn(correction.shape, generator=random).to(correction)
        shares = torch.from_numpy(self.kept)[steps].to(correction)
        kept = shares[:, None, None, None, None]
        noisy = kept.sqrt() * correction + (1 - kept).sqrt() * noise
        found = self.predictor(torch.cat([noisy, volumes], dim=1), steps.to(volumes.device), shares)
        return found.flatten(1), noise.flatten(1)
