"""The command line of `bids-sr-train`: pack scans into one file, and train a model on such files."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bids_sr import __version__
from bids_sr.errors import BidsSrError, TrainingDataError

if TYPE_CHECKING:
    from bids_sr.bids.inputs import DwiSeries
    from bids_sr.training.packing import PackedScan


def build_parser() -> argparse.ArgumentParser:
    """The parser of `bids-sr-train`."""
    parser = argparse.ArgumentParser(
        prog="bids-sr-train",
        description="Train a super-resolution model: pack the scans of BIDS datasets, then fit a model to packs.",
    )
    parser.add_argument("--version", action="version", version=f"bids_sr {__version__}")
    steps = parser.add_subparsers(dest="step", required=True)
    pack = steps.add_parser("pack", help="write normalized brain boxes of a dataset's dMRI series to one file")
    pack.add_argument("bids_dir", type=Path, help="BIDS dataset, raw or derivative")
    pack.add_argument("pack", type=Path, help="file to write (.safetensors)")
    pack.add_argument("--participant-label", nargs="+", default=[], metavar="LABEL", help="only these subjects")
    pack.add_argument("--b0-threshold", type=float, default=50.0, metavar="B", help="largest b-value of a b0 (s/mm2)")
    fit = steps.add_parser("fit", help="train a model on packs")
    fit.add_argument("pack", type=Path, nargs="+", help="packs to train on")
    fit.add_argument(
        "--validation", type=Path, nargs="+", required=True, metavar="PACK", help="packs of other subjects"
    )
    fit.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for weights, card, log, checkpoints"
    )
    fit.add_argument("--preset", default="light", help="a preset's name, or a TOML file (default: light)")
    fit.add_argument("--name", default="light", help="name of the model (default: light)")
    fit.add_argument("--max-steps", type=int, metavar="N", help="instead of the preset's")
    fit.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="processor (default: auto)")
    fit.add_argument("--threads", type=int, default=1, help="processor threads (default: 1)")
    fit.add_argument("--init-from", metavar="MODEL", help="name or card of a model whose weights to begin with")
    fit.add_argument("--resume", type=Path, metavar="CKPT", help="checkpoint to go on from")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bids-sr-train` and return its exit code: 0 done, 2 bad arguments or data, 130 interrupted."""
    options = build_parser().parse_args(argv)
    try:
        return pack_dataset(options) if options.step == "pack" else fit_model(options)
    except BidsSrError as error:
        print(f"bids-sr-train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def pack_dataset(options: argparse.Namespace) -> int:
    """Read each series of a dataset, crop and normalize it, and write the pack."""
    from bids_sr.bids.inputs import find_series
    from bids_sr.bids.outputs import write_atomically
    from bids_sr.config import Config
    from bids_sr.training.packing import save_pack

    labels = tuple(label.removeprefix("sub-") for label in options.participant_label)
    folder = options.pack.resolve().parent
    config = Config(options.bids_dir.resolve(), folder, folder, participants=labels, b0_threshold=options.b0_threshold)
    scans = []
    for series in find_series(config):
        scans.append(_packed(series, options.b0_threshold))
        print(f"{series.stem}: {scans[-1].data.shape[0]} volumes, {len(scans[-1].inside)} voxels of brain", flush=True)
    with write_atomically(options.pack) as partial:
        save_pack(scans, partial)
    return 0


def _packed(series: DwiSeries, b0_threshold: float) -> PackedScan:
    """One series of a dataset as a packed scan."""
    import nibabel as nib
    import numpy as np

    from bids_sr.dwi.b0 import mean_b0
    from bids_sr.dwi.gradients import check_gradients, read_gradients
    from bids_sr.dwi.mask import brain_mask
    from bids_sr.geometry import Grid
    from bids_sr.training.packing import pack_scan

    image = nib.Nifti1Image.from_filename(series.dwi)
    data = np.asarray(image.dataobj, dtype=np.float32)
    gradients = read_gradients(series.bval, series.bvec)
    check_gradients(gradients, data.shape[-1], b0_threshold, series.dwi.name)
    if series.mask is None:
        mask = brain_mask(mean_b0(data, gradients.bvals, b0_threshold), Grid.of(image).voxel_sizes)
    else:
        mask = np.asarray(nib.Nifti1Image.from_filename(series.mask).dataobj) > 0
    return pack_scan(series.stem, data, gradients.bvals, mask, b0_threshold)


def fit_model(options: argparse.Namespace) -> int:
    """Train on packs; weights and card are written after each validation."""
    try:
        import torch

        from bids_sr.training.run import describe, load_settings, train
    except ModuleNotFoundError as error:
        raise TrainingDataError(where="bids-sr-train fit", problem=f"{error}; pip install 'bids_sr[train]'") from error
    from bids_sr.models.csr_dmri import CsrDmri
    from bids_sr.models.registry import ModelCard, load_model
    from bids_sr.training.packing import load_pack

    settings = load_settings(options.preset)
    if options.max_steps is not None:
        shorter = dataclasses.replace(settings.optimization, max_steps=options.max_steps)
        settings = dataclasses.replace(settings, optimization=shorter)
    scans = [scan for file in options.pack for scan in load_pack(file)]
    validation = [scan for file in options.validation for scan in load_pack(file)]
    shared = {scan.name for scan in scans} & {scan.name for scan in validation}
    if shared:
        raise TrainingDataError(where=sorted(shared)[0], problem="given both for training and for validation")
    training = describe(settings, scans)
    initial = None
    if options.init_from is not None:
        model, origin = load_model(options.init_from, torch.device("cpu"))
        initial = cast(CsrDmri, model)
        training["started_from"] = {"weights_sha256": origin.weights_sha256, **origin.training}
    card = ModelCard(options.name, settings.description, "csr_dmri", dict(settings.model), training=training)
    accelerator = {"cuda": "gpu"}.get(options.device, options.device)
    train(
        scans, validation, settings, card, options.output,
        threads=options.threads, accelerator=accelerator, resume=options.resume, initial=initial,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
