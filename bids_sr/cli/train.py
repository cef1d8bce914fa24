"""The command line of `bids-sr-train`: pack or simulate scans, and train models on them."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_sr import __version__
from bids_sr.cli.arguments import OneLineParser
from bids_sr.errors import BidsSrError, MissingExtraError, MissingPathError, TrainingDataError, UnreadableFileError
from bids_sr.resources import available_cpus, lend_home

if TYPE_CHECKING:
    from bids_sr.models.base import TrainableModel
    from bids_sr.models.registry import ModelCard
    from bids_sr.training.packing import PackedScan
    from bids_sr.training.settings import TrainingSettings

_EPILOG = """\
example:
  bids-sr-train pack /data train.safetensors --participant-label 01 02 03
  bids-sr-train pack /data validation.safetensors --participant-label 04
  bids-sr-train fit train.safetensors --validation validation.safetensors --output my-model --preset light --name mine
  bids_sr /data /out participant --output-resolution 1.25 --model my-model/mine.json

Exit codes: 0 done, 2 bad arguments or bad input, 130 interrupted."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `bids-sr-train`."""
    parser = OneLineParser(
        prog="bids-sr-train",
        description="Train a super-resolution model: pack or simulate scans, then fit a model to them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bids_sr {__version__}")
    steps = parser.add_subparsers(dest="step", required=True)
    _add_pack(steps)
    _add_simulate(steps)
    _add_fit(steps)
    _add_uncertainty(steps)
    return parser


def _add_pack(steps: Any) -> None:
    """The step `pack`."""
    pack = steps.add_parser("pack", help="write normalized brain boxes of the dMRI series of datasets to one file")
    pack.add_argument("bids_dir", type=Path, nargs="+", help="BIDS datasets, raw or derivative")
    pack.add_argument("pack", type=Path, help="file to write (.safetensors)")
    pack.add_argument("--participant-label", nargs="+", default=[], metavar="LABEL", help="only these subjects")
    pack.add_argument(
        "--participant-file", type=Path, metavar="FILE", help="only the subjects in this text file, one label a line"
    )
    pack.add_argument(
        "--bval", type=float, nargs="+", default=[], metavar="B", help="only these shells, next to the b0 (s/mm2)"
    )
    pack.add_argument("--b0-threshold", type=float, default=50.0, metavar="B", help="largest b-value of a b0 (s/mm2)")
    pack.add_argument("--no-t1w", action="store_true", help="leave T1w images out")


def _add_simulate(steps: Any) -> None:
    """The step `simulate`."""
    simulate = steps.add_parser("simulate", help="make scans of heads that do not exist, with their T1w, as a pack")
    simulate.add_argument("pack", type=Path, help="file to write (.safetensors)")
    simulate.add_argument("--heads", type=_count, default=8, metavar="N", help="how many (default: 8)")
    simulate.add_argument(
        "--seed", type=_whole, default=0, metavar="S", help="other seeds make other heads (default: 0)"
    )
    simulate.add_argument(
        "--voxel-size", type=float, nargs=2, metavar=("LOW", "HIGH"), help="edges of the voxels, mm (default: 1 2)"
    )


def _add_fit(steps: Any) -> None:
    """The step `fit`."""
    fit = steps.add_parser("fit", help="train a model on packs")
    fit.add_argument("pack", type=Path, nargs="+", help="packs to train on")
    fit.add_argument(
        "--validation", type=Path, nargs="+", required=True, metavar="PACK", help="packs of other subjects"
    )
    fit.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for weights, card, log, checkpoints"
    )
    fit.add_argument("--preset", default="light", help="a preset's name, or a TOML file (default: light)")
    fit.add_argument("--name", type=_name, help="name of the model (default: the preset's)")
    fit.add_argument("--seed", type=_whole, metavar="S", help="instead of the preset's")
    fit.add_argument("--max-steps", type=_count, metavar="N", help="instead of the preset's")
    fit.add_argument("--precision", help="instead of the preset's: 32-true, bf16-mixed or 16-mixed")
    fit.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="processor (default: auto)")
    fit.add_argument("--devices", type=_count, default=1, metavar="N", help="GPUs of a node (default: 1)")
    fit.add_argument("--nodes", type=_count, default=1, metavar="N", help="nodes (default: 1)")
    fit.add_argument("--strategy", default="auto", choices=["auto", "ddp"], help="of several devices (default: auto)")
    fit.add_argument(
        "--workers", type=_whole, default=0, metavar="N",
        help="processes that prepare patches, for each device (default: 0, the training does it itself)",
    )  # fmt: skip
    fit.add_argument("--threads", type=_count, metavar="N", help="processor threads for each device (default: all)")
    fit.add_argument("--init-from", metavar="MODEL", help="name or card of a model whose weights to begin with")
    fit.add_argument("--freeze-encoder", action="store_true", help="train only the decoder")
    fit.add_argument(
        "--resume", type=Path, metavar="CKPT", help="checkpoint to go on from, or output folder for its last one"
    )


def _add_uncertainty(steps: Any) -> None:
    """The step `uncertainty`."""
    step = steps.add_parser(
        "uncertainty", help="add to a trained model the layer that tells how uncertain it is (bids_sr --uncertainty)"
    )
    step.add_argument("pack", type=Path, nargs="+", help="packs of acquired scans to fit the layer to")
    step.add_argument(
        "--validation", type=Path, nargs="+", required=True, metavar="PACK",
        help="packs of other subjects, on which the deviations are scaled to cover 90 %%",
    )  # fmt: skip
    step.add_argument("--model", required=True, help="name or card of the model")
    step.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for weights and card")
    step.add_argument("--name", type=_name, help="name of the model (default: that of --model)")
    step.add_argument("--seed", type=_whole, default=0, metavar="S", help="of the patches (default: 0)")
    step.add_argument("--threads", type=_count, metavar="N", help="processor threads (default: all)")


def _count(text: str) -> int:
    """A positive number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _whole(text: str) -> int:
    """A number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _name(text: str) -> str:
    """A name that files can have."""
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits, _, - and .")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bids-sr-train` and return its exit code: 0 done, 2 bad arguments or data, 130 interrupted."""
    steps = {"pack": pack_datasets, "simulate": simulate_pack, "fit": fit_model, "uncertainty": add_uncertainty}
    try:
        options = build_parser().parse_args(argv)
        lend_home()
        steps[options.step](options)
    except BidsSrError as error:
        print(f"bids-sr-train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        print(f"bids-sr-train: interrupted{f'; {error}' if str(error) else ''}", file=sys.stderr)
        return 130
    return 0


def pack_datasets(options: argparse.Namespace) -> None:
    """Read each series of the datasets, crop and normalize it, and write the pack."""
    from bids_sr.training.packing import save_pack
    from bids_sr.training.reading import ReadingOptions, read_scans

    for folder in options.bids_dir:
        if not folder.is_dir():
            raise MissingPathError(option="BIDS_DIR", path=folder)
    reading = ReadingOptions(
        participants=(*options.participant_label, *_listed(options.participant_file)),
        b0_threshold=options.b0_threshold,
        bvals=tuple(options.bval),
        use_t1w=not options.no_t1w,
    )
    save_pack(read_scans(options.bids_dir, reading, _tell), options.pack)


def _listed(file: Path | None) -> list[str]:
    """The labels in a text file."""
    if file is None:
        return []
    try:
        labels = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(option="--participant-file", path=file, format="text", reason=error) from error
    if not labels:
        raise UnreadableFileError(option="--participant-file", path=file, format="text", reason="it holds no labels")
    return labels


def _tell(line: str) -> None:
    """Say a line now, also where the output is a file."""
    print(line, flush=True)


def simulate_pack(options: argparse.Namespace) -> None:
    """Make scans of heads that do not exist, and write the pack."""
    from bids_sr.training.packing import save_pack
    from bids_sr.training.simulation import SimulationSettings, simulate_scans

    settings = SimulationSettings(voxel_size=tuple(options.voxel_size)) if options.voxel_size else SimulationSettings()
    save_pack(simulate_scans(options.heads, options.seed, settings, _tell), options.pack)


def fit_model(options: argparse.Namespace) -> None:
    """Train on packs; weights and card are written after each validation."""
    try:
        from bids_sr.models.registry import preset_file
        from bids_sr.training.run import Hardware, train
    except ModuleNotFoundError as error:
        raise MissingExtraError(what="bids-sr-train fit", package=error.name, extra="train") from error
    from bids_sr.training.packing import load_pack

    settings = _settings(options)
    scans = [scan for file in options.pack for scan in load_pack(file)]
    validation = [scan for file in options.validation for scan in load_pack(file)]
    initial = _initial(options.init_from)
    _check_subjects(scans, validation, None if initial is None else initial[1])
    warning = _t1w_warning(settings, scans)
    if warning:
        _warn(warning)
    hardware = Hardware(
        options.device, options.devices, options.nodes, options.strategy,
        options.threads or max(1, available_cpus() // options.devices), options.workers,
    )  # fmt: skip
    _quieten()
    train(
        scans, validation, settings, options.name or preset_file(options.preset).stem, options.output, hardware,
        resume=options.resume, initial=initial,
    )  # fmt: skip


def add_uncertainty(options: argparse.Namespace) -> None:
    """Fit the layer that tells the uncertainty, and write the model with it."""
    import dataclasses

    import torch

    from bids_sr.models.csr_dmri import CsrDmri
    from bids_sr.models.registry import load_model, save_model
    from bids_sr.training.packing import load_pack
    from bids_sr.training.spread import SpreadSettings, fit_spread

    torch.set_num_threads(options.threads or available_cpus())
    model, card = load_model(options.model, torch.device("cpu"))
    if not isinstance(model, CsrDmri):
        raise TrainingDataError(where=f"--model {options.model}", problem="is not a CSR-dMRI network")
    scans = [scan for file in options.pack for scan in load_pack(file)]
    validation = [scan for file in options.validation for scan in load_pack(file)]
    _check_subjects(scans, validation, card)
    uncertain, told = fit_spread(model, card, scans, validation, SpreadSettings(seed=options.seed))
    save_model(uncertain, dataclasses.replace(told, name=options.name or card.name), options.output)
    for scan, share in told.uncertainty["coverage"].items():
        scaled = ", which they were scaled to" if scan in told.uncertainty["validation_scans"] else ""
        print(f"{scan}: {100 * share:.1f} % of the acquired intensities lie in the 90 % intervals{scaled}")


def _t1w_warning(settings: TrainingSettings, scans: Sequence[PackedScan]) -> str:
    """What a model that uses the T1w will not learn where no scan has one; empty where there is nothing to say."""
    if not (settings.signal.guided or "t1w" in settings.inputs) or any(scan.t1w is not None for scan in scans):
        return ""
    if settings.signal.guided and settings.patches.guide.made > 0:
        return "no scan has a T1w; the model will learn to use one from pictures made of the scans alone"
    return "no scan has a T1w; the model will not learn to use one"


def _settings(options: argparse.Namespace) -> TrainingSettings:
    """The preset, with what the command line says instead."""
    from bids_sr.training.settings import load_settings

    given = {"seed": options.seed, "max_steps": options.max_steps, "precision": options.precision}
    instead = {key: value for key, value in given.items() if value is not None}
    if options.freeze_encoder:
        instead["freeze_encoder"] = True
    return load_settings(options.preset, instead)


def _check_subjects(scans: Sequence[PackedScan], validation: Sequence[PackedScan], begun: ModelCard | None) -> None:
    """Refuse to validate on subjects that are trained on, or that the model begun with has learned from."""
    from bids_sr.training.subjects import namesakes, shared_subjects, trained_on

    names, validated = ([scan.name for scan in part] for part in (scans, validation))
    if shared := shared_subjects(names, validated):
        raise TrainingDataError(where=shared[0], problem="given both for training and for validation")
    learned = [] if begun is None else trained_on(begun.training)
    if begun is not None and (known := shared_subjects(learned, validated)):
        raise TrainingDataError(where=known[0], problem=f"given for validation, and {begun.name} has learned from it")
    if alike := namesakes([*names, *learned], validated):
        _warn(
            f"{', '.join(alike)} of one dataset to learn from and of another one for validation: "
            "if that is one person, as in raw data and their derivatives, the validation is not of other subjects"
        )


def _warn(line: str) -> None:
    """Say what may be wrong."""
    print(f"bids-sr-train: warning: {line}", file=sys.stderr)


def _initial(name: str | None) -> tuple[TrainableModel, ModelCard] | None:
    """The model to begin with."""
    import torch

    from bids_sr.models.base import TrainableModel
    from bids_sr.models.registry import load_model

    if name is None:
        return None
    model, card = load_model(name, torch.device("cpu"))
    if not isinstance(model, TrainableModel):
        raise TrainingDataError(where=f"--init-from {name}", problem="it has no weights")
    return model, card


def _quieten() -> None:
    """Leave out what lightning says to programmers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")


if __name__ == "__main__":
    sys.exit(main())
