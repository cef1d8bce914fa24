"""Made diffusion signals whose tensors are known."""

import numpy as np
from scipy.spatial.transform import Rotation

from bids_sr.dwi.gradients import Gradients


def directions(number: int) -> np.ndarray:
    """Unit vectors spread over half a sphere on a golden spiral, (number, 3)."""
    index = np.arange(number) + 0.5
    polar, azimuth = np.arccos(1 - index / number), np.pi * (1 + 5**0.5) * index
    return np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=1)


def one_shell(number: int = 20, bval: float = 1000.0) -> Gradients:
    """One b0 and one shell."""
    return Gradients(np.r_[0.0, np.full(number, bval)], np.vstack([np.zeros(3), directions(number)]))


def tensors(eigenvalues: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tensors (n, 3, 3) of the given eigenvalues (n, 3) in random orientations, and their first directions (n, 3)."""
    frames = Rotation.random(len(eigenvalues), random_state=seed).as_matrix()
    return np.einsum("nij,nj,nkj->nik", frames, eigenvalues, frames), frames[..., 0]


def signals(tensor: np.ndarray, gradients: Gradients, s0: float = 1000.0) -> np.ndarray:
    """Noise-free signals (n, volumes) of tensors (n, 3, 3)."""
    weighting = np.einsum("vi,nij,vj->nv", gradients.bvecs, tensor, gradients.bvecs)
    return s0 * np.exp(-gradients.bvals * weighting)
