"""Turn a download of the Human Connectome Project into a BIDS derivative, and its subjects into lists for training.

    python -m benchmarks.hcp convert HCP_DIR BIDS_DIR --b-value 1000
    python -m benchmarks.hcp split BIDS_DIR LISTS --seed 0

A download has a folder per subject, such as `100307/T1w/Diffusion/data.nii.gz`, all of it in the space that the project
calls `acpc_dc`. Files are linked, not copied, except where only one shell is wanted: that makes a new, smaller image.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_sr.bids.inputs import subject_labels
from bids_sr.bids.outputs import write_atomically
from bids_sr.errors import BidsSrError, TrainingDataError

#: Where a subject's files lie in a download, and what they are called in BIDS.
FILES = {
    "T1w/Diffusion/data.nii.gz": "dwi/{stem}_desc-preproc_dwi.nii.gz",
    "T1w/Diffusion/bvals": "dwi/{stem}_desc-preproc_dwi.bval",
    "T1w/Diffusion/bvecs": "dwi/{stem}_desc-preproc_dwi.bvec",
    "T1w/Diffusion/nodif_brain_mask.nii.gz": "dwi/{stem}_desc-brain_mask.nii.gz",
    "T1w/T1w_acpc_dc_restore_brain.nii.gz": "anat/{stem}_desc-preproc_T1w.nii.gz",
}
SIDECARS = {
    "dwi/{stem}_desc-preproc_dwi.json": {"SkullStripped": True, "SpatialReference": "orig"},
    "dwi/{stem}_desc-brain_mask.json": {"Type": "Brain", "SpatialReference": "orig"},
    "anat/{stem}_desc-preproc_T1w.json": {"SkullStripped": True, "SpatialReference": "orig"},
}
DESCRIPTION = {
    "Name": "Human Connectome Project, minimally preprocessed",
    "BIDSVersion": "1.10.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "HCP Pipelines"}],
}
#: The project's b0 volumes have b = 5 s/mm2, and the b-values of a shell differ by some tens.
LARGEST_B0, SHELL_WIDTH = 50.0, 100.0
#: Shares of the subjects to train on, to validate on, and to test on.
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def convert(download: Path, dataset: Path, link: str, b_value: float | None) -> list[str]:
    """Make a BIDS derivative of every complete subject of a download; the labels of its subjects.

    Subjects that are there already are left as they are. `link` is symbolic, hard or copy; with a `b_value`, in s/mm2,
    only the b0 volumes and that shell are kept.

    Raises
    ------
    TrainingDataError
        If no subject is complete, a file cannot be linked, or a subject lacks that shell.
    """
    labels = []
    for folder in sorted(path for path in download.iterdir() if (path / "T1w" / "Diffusion").is_dir()):
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            print(f"{folder.name}: left out, it has no {missing[0]}", file=sys.stderr)
            continue
        if not (dataset / f"sub-{folder.name}").is_dir():
            _convert_subject(folder, dataset, link, b_value)
        labels.append(folder.name)
    if not labels:
        raise TrainingDataError(where=download, problem="no folder in it holds a complete T1w/Diffusion")
    (dataset / "dataset_description.json").write_text(json.dumps(DESCRIPTION, indent=1) + "\n", encoding="utf-8")
    # The validator has no rule yet for gradients of preprocessed series.
    (dataset / ".bidsignore").write_text("*.bval\n*.bvec\n", encoding="utf-8")
    return labels


def _convert_subject(source: Path, dataset: Path, link: str, b_value: float | None) -> None:
    """One subject, whole or not at all."""
    target = dataset / f"sub-{source.name}"
    partial = dataset / f".sub-{source.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_subject(source, partial, f"{target.name}_space-ACPC", link, b_value)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_subject(source: Path, folder: Path, stem: str, link: str, b_value: float | None) -> None:
    """The files of one subject, in a folder."""
    for name, place in FILES.items():
        file = folder / place.format(stem=stem)
        file.parent.mkdir(parents=True, exist_ok=True)
        _link(source / name, file, link)
    for place, content in SIDECARS.items():
        (folder / place.format(stem=stem)).write_text(json.dumps(content) + "\n", encoding="utf-8")
    if b_value is not None:
        keep_shell(folder / "dwi" / f"{stem}_desc-preproc_dwi.nii.gz", b_value)


def _link(source: Path, target: Path, kind: str) -> None:
    """A second name for a file, or a copy of it."""
    kinds: dict[str, Callable[[Path, Path], object]] = {
        "symbolic": os.symlink,
        "hard": os.link,
        "copy": shutil.copyfile,
    }
    try:
        kinds[kind](source.resolve(), target)
    except OSError as error:
        raise TrainingDataError(where=source, problem=f"{kind} link: {error.strerror}; try another --link") from error


def keep_shell(dwi: Path, b_value: float) -> None:
    """Replace a series and its gradients, links perhaps, by files of its b0 volumes and of one shell.

    Raises
    ------
    TrainingDataError
        If the series has no volume within `SHELL_WIDTH` of `b_value`.
    """
    gradients = [dwi.with_name(dwi.name.replace(".nii.gz", ending)) for ending in (".bval", ".bvec")]
    bvals, bvecs = (np.atleast_2d(np.loadtxt(file)) for file in gradients)
    shell = np.abs(bvals[0] - b_value) <= SHELL_WIDTH
    if not shell.any():
        raise TrainingDataError(where=dwi, problem=f"no volume with b near {b_value:g}")
    kept = np.flatnonzero(shell | (bvals[0] <= LARGEST_B0))
    with write_atomically(dwi) as partial:
        _select_volumes(dwi, kept).to_filename(partial)
    for file, values, form in zip(gradients, (bvals, bvecs), ("%g", "%.6f"), strict=True):
        file.unlink()
        np.savetxt(file, values[:, kept], fmt=form)


def _select_volumes(dwi: Path, kept: NDArray[np.int64]) -> nib.Nifti1Image:
    """Some volumes of a series, read one after the other: the whole series may not fit into memory."""
    image = nib.Nifti1Image.from_filename(dwi, keep_file_open=True)
    data = np.empty((*image.shape[:3], len(kept)), np.float32)
    for place, index in enumerate(kept):
        data[..., place] = image.dataobj[..., int(index)]
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    return nib.Nifti1Image(data, image.affine, header)


def split(labels: Sequence[str], seed: int, limit: int | None = None) -> dict[str, list[str]]:
    """Labels divided at random by `SHARES`, at least one to each part; of no more than `limit` subjects.

    Raises
    ------
    TrainingDataError
        If there are fewer than three subjects.
    """
    order = np.random.default_rng(seed).permutation(len(labels))[:limit]
    if len(order) < len(SHARES):
        raise TrainingDataError(where="split", problem=f"{len(order)} subjects cannot be divided in three")
    n_test, n_validation = (max(1, round(SHARES[part] * len(order))) for part in ("test", "validation"))
    parts = np.split(order, [len(order) - n_test - n_validation, len(order) - n_test])
    chosen = sorted(labels)
    return {part: sorted(chosen[index] for index in indices) for part, indices in zip(SHARES, parts, strict=True)}


def write_lists(dataset: Path, folder: Path, seed: int, limit: int | None) -> dict[str, list[str]]:
    """Write `train.txt`, `validation.txt` and `test.txt`, one label a line, of the subjects of a dataset."""
    lists = split(subject_labels(dataset), seed, limit)
    folder.mkdir(parents=True, exist_ok=True)
    for part, labels in lists.items():
        (folder / f"{part}.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    return lists


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.hcp`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hcp", description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    first = steps.add_parser("convert", help="make a BIDS derivative of a download")
    first.add_argument("download", type=Path, help="folder that holds 100307, 100408, ...")
    first.add_argument("dataset", type=Path, help="BIDS dataset to make, or to add new subjects to")
    first.add_argument("--link", choices=["symbolic", "hard", "copy"], default="symbolic", help="(default: symbolic)")
    first.add_argument("--b-value", type=float, metavar="B", help="keep the b0 volumes and this shell alone (s/mm2)")
    second = steps.add_parser("split", help="divide the subjects 70/10/20 and write their labels")
    second.add_argument("dataset", type=Path)
    second.add_argument("lists", type=Path, help="folder for train.txt, validation.txt and test.txt")
    second.add_argument("--seed", type=int, default=0)
    second.add_argument("--subjects", type=int, metavar="N", help="divide only N subjects, drawn at random")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a step and return its exit code: 0 done, 2 bad arguments or data."""
    options = build_parser().parse_args(argv)
    try:
        if options.step == "convert":
            options.dataset.mkdir(parents=True, exist_ok=True)
            labels = convert(options.download, options.dataset, options.link, options.b_value)
            print(f"{options.dataset}: {len(labels)} subjects")
        else:
            lists = write_lists(options.dataset, options.lists, options.seed, options.subjects)
            print(", ".join(f"{len(labels)} {part}" for part, labels in lists.items()))
    except (BidsSrError, OSError) as error:
        print(f"benchmarks.hcp: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
