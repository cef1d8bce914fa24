"""How exact, how safe and how fast the T1w registration is, on real scans.

    python -m benchmarks.registration DATASET > benchmarks/results/registration.txt

For every series of DATASET (a BIDS folder) whose subject has a T1w: the motion found; its distance from that of ANTs,
where antspyx is installed (not a dependency); how exactly the T1w is brought back after made offsets of 20 mm and
15 degrees; processor time; and the agreement with the T1w of the other subjects. Distances are means over the brain.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import read_gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.dwi.registration import Registration, register_rigid

OFFSET_MM, OFFSET_DEGREES = 20.0, 15.0


@dataclass(frozen=True)
class Pair:
    """A series and a T1w of the same head."""

    name: str
    subject: str
    b0: NDArray[np.float32]
    b0_affine: NDArray[np.float64]
    mask: NDArray[np.bool_]
    t1w: NDArray[np.float32]
    t1w_affine: NDArray[np.float64]

    @property
    def points(self) -> NDArray[np.float64]:
        """World coordinates (mm) of the brain, (n, 3)."""
        return np.argwhere(self.mask) @ self.b0_affine[:3, :3].T + self.b0_affine[:3, 3]

    def register(self, offset: NDArray[np.float64] | None = None) -> tuple[Registration, float]:
        """The registration after the T1w's world was moved by `offset`, and its processor time in seconds."""
        began = time.process_time()
        affine = self.t1w_affine if offset is None else offset @ self.t1w_affine
        found = register_rigid(self.b0, self.b0_affine, self.mask, self.t1w, affine)
        return found, time.process_time() - began


def pairs_of(dataset: Path) -> Iterator[Pair]:
    """Every series with the T1w of its subject; with several of both, the first with the first and so on."""
    for folder in sorted(dataset.glob("sub-*")):
        scans = sorted(folder.glob("anat/*_T1w.nii.gz"))
        for index, file in enumerate(sorted(folder.glob("dwi/*_dwi.nii.gz")) if scans else []):
            image, t1w = nib.load(file), nib.load(scans[min(index, len(scans) - 1)])
            stem = file.name.removesuffix(".nii.gz")
            gradients = read_gradients(file.with_name(f"{stem}.bval"), file.with_name(f"{stem}.bvec"))
            b0 = mean_b0(image.dataobj, gradients.bvals, 50)
            mask = brain_mask(b0, image.affine)
            voxels = np.asarray(t1w.dataobj, dtype=np.float32)
            yield Pair(stem, folder.name, b0, image.affine, mask, voxels, t1w.affine)


def made_offsets(pair: Pair, number: int) -> Iterator[NDArray[np.float64]]:
    """Motions of the full size about the brain's centre, in random directions; always the same ones."""
    random = np.random.default_rng(0)
    centre = pair.points.mean(axis=0)
    for _ in range(number):
        axis, shift = (vector / np.linalg.norm(vector) for vector in random.normal(size=(2, 3)))
        offset = np.eye(4)
        offset[:3, :3] = Rotation.from_rotvec(OFFSET_DEGREES * axis, degrees=True).as_matrix()
        offset[:3, 3] = centre + OFFSET_MM * shift - offset[:3, :3] @ centre
        yield offset


def distance(pair: Pair, first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Mean distance (mm) between where two T1w-to-dMRI motions see the brain in the T1w."""
    seen = [pair.points @ inverse[:3, :3].T + inverse[:3, 3] for inverse in map(np.linalg.inv, (first, second))]
    return float(np.linalg.norm(seen[0] - seen[1], axis=1).mean())


def motion_of_ants(pair: Pair) -> NDArray[np.float64]:
    """T1w world to dMRI world by ANTs: rigid, from the scanner's alignment, the b0 inside its mask being fixed."""
    import ants

    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder, f"{name}.nii.gz")) for name in ("fixed", "mask", "moving")}
        nib.Nifti1Image(np.where(pair.mask, pair.b0, 0).astype(np.float32), pair.b0_affine).to_filename(files["fixed"])
        nib.Nifti1Image(pair.mask.astype(np.float32), pair.b0_affine).to_filename(files["mask"])
        nib.Nifti1Image(pair.t1w, pair.t1w_affine).to_filename(files["moving"])
        start = str(Path(folder, "start.mat"))
        ants.write_transform(ants.create_ants_transform(transform_type="Euler3DTransform", dimension=3), start)
        images = {name: ants.image_read(file) for name, file in files.items()}
        # By default ANTs samples a random fifth of the voxels, and its result then varies by millimetres between runs.
        found = ants.registration(
            images["fixed"],
            images["moving"],
            "Rigid",
            initial_transform=start,
            mask=images["mask"],
            aff_random_sampling_rate=1.0,
            random_seed=1,
        )
        transform = ants.read_transform(found["fwdtransforms"][0])
    return np.linalg.inv(_as_matrix(transform))


def _as_matrix(transform: object) -> NDArray[np.float64]:
    """An ANTs transform (LPS+) as a matrix between worlds (RAS+), read off at four points."""
    flip = np.diag([-1.0, -1.0, 1.0])
    corners = np.vstack([np.zeros(3), 100 * np.eye(3)]) @ flip
    moved = np.array([transform.apply_to_point(tuple(point)) for point in corners]) @ flip  # type: ignore[attr-defined]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = ((moved[1:] - moved[0]) / 100).T, moved[0]
    return matrix


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--offsets", type=int, default=6, help="made offsets per series")
    options = parser.parse_args()
    pairs = list(pairs_of(options.dataset))
    with_ants = importlib.util.find_spec("ants") is not None
    print("series  rotation (deg)  shift (mm)  start  agreement  seconds  from ANTs (mm)  error after each offset (mm)")
    for pair in pairs:
        found, seconds = pair.register()
        from_ants = f"{distance(pair, motion_of_ants(pair), found.matrix):.2f}" if with_ants else "n/a"
        errors = []
        for offset in made_offsets(pair, options.offsets):
            moved, _ = pair.register(offset)
            errors.append(f"{distance(pair, moved.matrix @ offset, found.matrix):.2f}")
        motion = f"{found.rotation_degrees:.2f}  {found.translation_mm:.2f}  {found.start}  {found.agreement:.3f}"
        print(f"{pair.name}  {motion}  {seconds:.1f}  {from_ants}  {' '.join(errors)}", flush=True)
    print("\nagreement with the T1w of each subject\nseries  " + "  ".join(pair.name for pair in pairs))
    for pair in pairs:
        others = [Pair(**{**vars(pair), "t1w": other.t1w, "t1w_affine": other.t1w_affine}) for other in pairs]
        print(f"{pair.name}  " + "  ".join(f"{other.register()[0].agreement:.3f}" for other in others), flush=True)


if __name__ == "__main__":
    main()
