"""From packed scans and settings to weights with their card."""

import dataclasses
import inspect
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from bids_sr.errors import TrainingDataError
from bids_sr.inference.device import resolve_device
from bids_sr.models.base import TrainableModel
from bids_sr.models.csr_dmri import CsrDmri, guided_weights
from bids_sr.models.grid import NETWORKS
from bids_sr.models.registry import ModelCard, build_model, file_sha256
from bids_sr.training.callbacks import MONITORED, StepBar, WriteWeights
from bids_sr.training.checkpoints import (
    AtomicCheckpointIO,
    WriteCheckpoints,
    checkpoints_in,
    find_checkpoint,
    requeued_checkpoint,
    resumed_card,
)
from bids_sr.training.guides import FAITHFUL
from bids_sr.training.module import Restoration
from bids_sr.training.packing import PackedScan
from bids_sr.training.patches import Batch, PatchSettings, PatchStream
from bids_sr.training.settings import Loss, TrainingSettings

#: Steps between lines of the log.
LOG_EVERY = 25
#: Arguments of networks that a training may change: layers that are added, and how a diffusion model is drawn from.
_FREE = ("guided", "spread")
_FREE_OF_DRAWS = ("steps", "samples", "seed")
#: What else two networks must share for one to begin with the weights of the other.
_KIND = ("architecture", "inputs", "normalization")


@dataclass(frozen=True)
class Hardware:
    """What a training runs on.

    Attributes
    ----------
    device : str
        "auto", "cpu" or "cuda".
    devices, nodes : int
        GPUs (on a CPU, processes) per node, and nodes.
    strategy : {"auto", "ddp"}
        How several devices share the work, see lightning.
    threads : int
        Of each process.
    workers : int
        Processes that prepare patches, for each device; with 0 the training prepares them itself.
    """

    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    threads: int = 1
    workers: int = 0

    @property
    def description(self) -> dict[str, Any]:
        """What a model card tells of it."""
        gpu = resolve_device(self.device).type == "cuda"
        name = torch.cuda.get_device_name() if gpu else _processor()
        count = {"devices": self.devices, "nodes": self.nodes, "threads": self.threads, "workers": self.workers}
        return {"device": name, **count, "torch": torch.__version__, "lightning": lightning.__version__}


def _processor() -> str:
    """Name of the processor."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def card_of(
    name: str,
    settings: TrainingSettings,
    scans: Sequence[PackedScan],
    validation: Sequence[PackedScan],
    hardware: Hardware,
) -> ModelCard:
    """The card of a model that is to be trained."""
    options = settings.optimization
    weights = "those of the best validation" if options.patience else "those of the last step"
    training = {
        "scans": [scan.name for scan in scans],
        "simulated_scans": sum(scan.simulated for scan in scans),
        "scans_with_t1w": sum(scan.t1w is not None for scan in scans),
        "validation_scans": [scan.name for scan in validation],
        "range": _range(scans),
        "checksums": {scan.name: scan.checksum for scan in (*scans, *validation)},
        "patches": asdict(settings.patches),
        "loss": _loss_record(settings.loss),
        "optimization": asdict(options),
        "weights": weights + (f", averaged with a decay of {options.ema}" if options.ema else ""),
        "hardware": hardware.description,
    }
    if settings.adversarial is not None:
        training["adversarial"] = asdict(settings.adversarial)
    return ModelCard(
        name, settings.description, settings.architecture, dict(settings.model), settings.inputs,
        settings.normalization, settings.patches.scale_range, training=training,
    )  # fmt: skip


def _range(scans: Sequence[PackedScan]) -> dict[str, list[float]]:
    """Smallest and largest of what a card tells of its scans, for `bids_sr.workflows.training_range` to compare with.

    Voxel sizes in mm, and b-values of the weighted volumes in s/mm2. Packs of earlier versions hold no b-values; with
    one of them among the others, nothing is told.
    """
    kinds = {"voxel_sizes": [scan.voxel_sizes for scan in scans]}
    bvals = [scan.gradients[scan.shells > 0, 0] for scan in scans if scan.gradients is not None]
    if len(bvals) == len(scans):
        kinds["bvals"] = bvals
    extremes = {name: (np.concatenate(values).min(), np.concatenate(values).max()) for name, values in kinds.items()}
    return {name: [round(float(value), 3) for value in values] for name, values in extremes.items()}


def _loss_record(loss: Loss) -> dict[str, Any]:
    """What a card tells of the loss: the content of a file, which may lie elsewhere when the training goes on."""
    record = asdict(loss)
    if loss.perceptual is not None:
        file = Path(loss.perceptual.weights)
        record["perceptual"]["weights"] = file_sha256(file) if file.is_file() else ""
    return record


def train(
    scans: Sequence[PackedScan],
    validation: Sequence[PackedScan],
    settings: TrainingSettings,
    name: str,
    folder: Path,
    hardware: Hardware = Hardware(),
    *,
    resume: Path | None = None,
    initial: tuple[TrainableModel, ModelCard] | None = None,
) -> None:
    """Train a model; weights, card, log and checkpoints go to `folder`.

    Parameters
    ----------
    scans, validation : sequence of PackedScan
        Validation examples come from scans of their own, and are the same each time.
    settings : TrainingSettings
    name : str
        Of the model.
    folder : Path
    hardware : Hardware
    resume : Path, optional
        A checkpoint of the same training, or the folder of that training, whose last checkpoint is meant. A job that
        SLURM has started again goes on from the last checkpoint in `folder` by itself.
    initial : model and card, optional
        A model whose weights to begin with.

    Raises
    ------
    TrainingDataError
        If the checkpoint or the initial model is of another kind, the folder cannot be written to or belongs to
        another training, or the hardware is not there.
    DeviceError
        If there is no such device.
    KeyboardInterrupt
        If the training is interrupted; its message names the last checkpoint.
    """
    torch.set_num_threads(hardware.threads)
    lightning.seed_everything(settings.optimization.seed, verbose=False)
    model = build_model(settings.architecture, settings.model, len(settings.inputs))
    card = card_of(name, settings, scans, validation, hardware)
    if initial is not None:
        card = _begin_with(model, *initial, card)
    checkpoint = requeued_checkpoint(folder) if resume is None else find_checkpoint(resume)
    if checkpoint is not None:
        card = resumed_card(checkpoint, card, folder)
    if settings.optimization.freeze_encoder:
        cast(CsrDmri, model).encoder.requires_grad_(False)
    patches = _Patches(scans, validation, settings, hardware.workers)
    step = Restoration(model, settings.loss, settings.optimization, settings.adversarial, settings.patches.volumes)
    _fit(step, patches, card, folder, hardware, checkpoint)


def _begin_with(model: TrainableModel, source: TrainableModel, origin: ModelCard, card: ModelCard) -> ModelCard:
    """Give a model the weights of another one of its kind, which need not be guided; the card tells so."""
    _check_kind(origin, card)
    try:
        widened = isinstance(model, CsrDmri) and card.guided and not origin.guided
        weights = _without_spread(source)
        model.load_state_dict(guided_weights(weights, cast(CsrDmri, model)) if widened else weights)
    except RuntimeError as error:
        problem = f"it is of another architecture: {origin.arguments} instead of {card.arguments}"
        raise TrainingDataError(where=f"--init-from {origin.name}", problem=problem) from error
    started_from = {"weights_sha256": origin.weights_sha256, **origin.training}
    return dataclasses.replace(card, training={**card.training, "started_from": started_from})


def _check_kind(origin: ModelCard, card: ModelCard) -> None:
    """Refuse to begin with what was learned by another network, also where the weights would have the same shapes."""
    compared = [(field, getattr(origin, field), getattr(card, field)) for field in _KIND]
    if origin.architecture == card.architecture:
        there, here = _arguments(origin), _arguments(card)
        compared += [(name, there.get(name), here.get(name)) for name in sorted(there.keys() | here.keys())]
    for name, before, now in compared:
        if before != now:
            problem = f"it is of another architecture: {name} {before} instead of {now}"
            raise TrainingDataError(where=f"--init-from {origin.name}", problem=problem)


def _arguments(card: ModelCard) -> dict[str, Any]:
    """What makes a network what it is, whether the card says it or leaves it at what it is by itself."""
    network = CsrDmri if card.architecture == "csr_dmri" else NETWORKS[card.architecture]
    parameters = inspect.signature(network).parameters.values()
    by_itself = {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "channels"}
    free = (*_FREE, *(_FREE_OF_DRAWS if card.architecture == "ddpm3d" else ()))
    given = {name: value for name, value in {**by_itself, **card.arguments}.items() if name not in free}
    # Files hold lists where a network has tuples.
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def _without_spread(source: TrainableModel) -> dict[str, Tensor]:
    """The weights of a model without the layer that tells its uncertainty, which holds for these weights alone."""
    return {name: weight for name, weight in source.state_dict().items() if not name.startswith("spread.")}


def _fit(
    step: Restoration, patches: "_Patches", card: ModelCard, folder: Path, hardware: Hardware, checkpoint: Path | None
) -> None:
    """Run lightning; whatever ends it early is said in one line."""
    options = step.optimization
    every = options.checkpoint_every or options.validate_every
    weights = WriteWeights(card, folder, best_only=options.patience > 0)
    checkpoints = WriteCheckpoints(card, folder / "checkpoints", every, options.validate_every)
    with _one_line(folder, checkpoints):
        if checkpoint is None and checkpoints_in(checkpoints.folder):
            problem = "holds checkpoints of another training; go on with --resume, or name another folder"
            raise TrainingDataError(where=folder, problem=problem)
        trainer = _trainer(step, folder, hardware, [weights, *_averaging_and_stopping(step), checkpoints])
        trainer.fit(step, datamodule=patches, ckpt_path=checkpoint, weights_only=True)
        if weights.validated_step != trainer.global_step:
            trainer.validate(step, datamodule=patches, verbose=False)


def _trainer(step: Restoration, folder: Path, hardware: Hardware, callbacks: list[Callback]) -> lightning.Trainer:
    """Lightning's trainer for these settings."""
    options = step.optimization
    accelerator = "gpu" if resolve_device(hardware.device).type == "cuda" else "cpu"
    if options.precision == "16-mixed" and accelerator == "cpu":
        raise TrainingDataError(where="--precision 16-mixed", problem="needs a GPU; a processor has bf16-mixed")
    folder.mkdir(parents=True, exist_ok=True)
    return lightning.Trainer(
        accelerator=accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=hardware.strategy,
        precision=options.precision,
        max_steps=options.max_steps,
        gradient_clip_val=options.gradient_clip or None,
        val_check_interval=options.validate_every,
        limit_val_batches=-(-options.validation_examples // (options.batch_size * hardware.devices * hardware.nodes)),
        num_sanity_val_steps=0,
        log_every_n_steps=LOG_EVERY,
        default_root_dir=folder,
        logger=_loggers(folder),
        callbacks=[*callbacks, StepBar()],
        plugins=[AtomicCheckpointIO()],
        # Checkpoints are written by a callback of ours, batches of each rank made by `PatchStream`.
        enable_checkpointing=False,
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def _averaging_and_stopping(step: Restoration) -> list[Callback]:
    """Lightning's callbacks for the settings `ema` and `patience`."""
    options = step.optimization
    averaging = [EMAWeightAveraging(decay=options.ema)] if options.ema else []
    stopping = [EarlyStopping(MONITORED, patience=options.patience)] if options.patience else []
    return [*averaging, *stopping]


def _loggers(folder: Path) -> list[Logger]:
    """A table of the run, and TensorBoard's files where it is installed; a resumed training begins a new run."""
    version = f"run-{1 + len(list((folder / 'log').glob('run-*')))}"
    table = CSVLogger(folder, name="log", version=version, flush_logs_every_n_steps=LOG_EVERY)
    if find_spec("tensorboard") is None:
        return [table]
    return [table, TensorBoardLogger(folder, name="log", version=version)]


@contextmanager
def _one_line(folder: Path, checkpoints: WriteCheckpoints) -> Iterator[None]:
    """What can end a training early, as errors that say it in one line."""
    try:
        yield
    except SystemExit as error:
        # How lightning passes on that it was interrupted or is to terminate.
        last = f"go on with --resume {checkpoints.latest}" if checkpoints.latest else "there is no checkpoint yet"
        raise KeyboardInterrupt(last) from error
    except OSError as error:
        problem = f"cannot be written to ({error.strerror or error})"
        raise TrainingDataError(where=folder, problem=problem) from error
    except torch.cuda.OutOfMemoryError as error:
        problem = "the memory of the GPU is too small; lower batch_size, points or patch in the preset"
        raise TrainingDataError(where="--device cuda", problem=problem) from error
    except MisconfigurationException as error:
        raise TrainingDataError(where="--device", problem=" ".join(str(error).split())) from error


class _Patches(lightning.LightningDataModule):
    """Batches of patches; a training that resumes goes on with the batch after the last one it saw."""

    def __init__(
        self,
        scans: Sequence[PackedScan],
        validation: Sequence[PackedScan],
        settings: TrainingSettings,
        workers: int,
    ) -> None:
        super().__init__()
        self.scans, self.validation, self.settings, self.workers = scans, validation, settings, workers
        self.seen = 0

    def train_dataloader(self) -> DataLoader[Batch]:
        """Called by lightning."""
        return self._loader(self.scans, self.settings.patches, self.settings.optimization.seed, self.seen)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Called by lightning; every scan as it is: none preferred, no T1w left out or tampered with."""
        patches = replace(self.settings.patches, simulated_share=None, t1w_dropped=0.0, guide=FAITHFUL)
        return self._loader(self.validation, patches, self.settings.optimization.seed + 1, 0)

    def _loader(self, scans: Sequence[PackedScan], patches: PatchSettings, seed: int, first: int) -> DataLoader[Batch]:
        """Batches of this rank, the first of them after `first` batches of all ranks together."""
        trainer = cast(lightning.Trainer, self.trainer)
        stream = PatchStream(
            scans, patches, self.settings.signal, seed, self.settings.optimization.batch_size,
            first_batch=first // trainer.world_size, rank=trainer.global_rank, world_size=trainer.world_size,
        )  # fmt: skip
        on_gpu = isinstance(trainer.accelerator, CUDAAccelerator)
        return DataLoader(
            stream, batch_size=None, num_workers=self.workers, persistent_workers=self.workers > 0, pin_memory=on_gpu
        )

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps: how many batches all ranks together have seen."""
        trainer = cast(lightning.Trainer, self.trainer)
        return {"seen": trainer.global_step * trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Called by lightning before the first batch of a training that resumes."""
        self.seen = state_dict["seen"]
