"""Every mistake that a user can make, each with the one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import errno
import resource
from typing import Any, ClassVar

# What allocators say when they fail: PyTorch on a processor, PyTorch on a GPU, the C++ library, the operating system.
_MEMORY_PHRASES = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "cannot allocate memory")
# What the loader says when a library finds no room for itself, and nothing after it; on a disk that forbids to execute,
# it adds that.
_NO_ROOM = "failed to map segment from shared object"
# What Python says of an extension that failed and did not tell why.
_SILENT = ("without exception set", "without setting an exception")


class BidsSrError(Exception):
    """Base of all errors of this package.

    A subclass states its message once, as a `template` that the keyword arguments of the constructor fill.

    Attributes
    ----------
    template : str
        Message with named fields in braces.
    exit_code : int
        Exit status of the program when this error ends it.
    fields : dict
        The values that fill the template.
    """

    template: ClassVar[str] = "{message}"
    exit_code: ClassVar[int] = 1

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.template.format(**fields))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle as `cls(*args)` by default, which a keyword-only constructor refuses; worker processes
        # must be able to hand them on.
        return _rebuild, (type(self), self.fields)


def _rebuild(cls: type[BidsSrError], fields: dict[str, Any]) -> BidsSrError:
    """Make the error again in the process that receives it."""
    return cls(**fields)


class InputError(BidsSrError):
    """Bad arguments or bad input: the user can mend it, so no crash file and exit code 2."""

    exit_code: ClassVar[int] = 2


class OutOfMemoryError(BidsSrError):
    """A step needs more memory than there is; schedulers retry on exit code 137."""

    template = (
        "{what} needs {needed_gb:.1f} GB of memory and {available_gb:.1f} GB are available. Raise --mem, ask for "
        "coarser voxels or run fewer processes."
    )
    exit_code: ClassVar[int] = 137


# Command line and configuration


class MissingPathError(InputError):
    """A file or folder named on the command line does not exist."""

    template = (
        "{option}: {path} does not exist. Check the path; in a container, the folder must be bound (docker -v, "
        "apptainer --bind)."
    )


class UnreadableFileError(InputError):
    """A file named on the command line cannot be parsed."""

    template = "{option}: {path} is not valid {format}: {reason}"


class ConfigurationError(InputError):
    """An option has a value that cannot be used."""

    template = "{option}: {reason}"


class OutputIsInputError(InputError):
    """The output folder is a dataset that is read."""

    template = (
        "The output folder is the input {path} ({option}), which is never written to. Name another one, for example "
        "{suggestion}."
    )


class OutputInsideInputError(InputError):
    """The output folder lies among the data that are read."""

    template = (
        "The output folder {output_dir} is inside the input {path} ({option}). Only its derivatives/ may hold results; "
        "use for example {suggestion}."
    )


class InputInsideOutputError(InputError):
    """A dataset lies inside the output folder, where results would be written next to its files."""

    template = (
        "The input {path} ({option}) is inside the output folder {output_dir}. Name an output folder that does not "
        "hold the input."
    )


class ForeignOutputError(InputError):
    """The output folder holds what another program made."""

    template = "The output folder {output_dir} holds {content}. Name a folder of its own."


class WorkInsideInputError(InputError):
    """The work folder lies inside a dataset that is read."""

    template = "The work folder {work_dir} is inside the input {path} ({option}). Name another one with --work-dir."


class NotWritableError(InputError):
    """A folder that must be written to cannot be."""

    template = "{option}: {path} cannot be written to ({reason}). Choose another folder or change its permissions."


# Dataset


class NotBidsError(InputError):
    """The folder given has no readable dataset_description.json."""

    template = (
        "{path} is not a BIDS dataset: {reason}. Give the folder that holds dataset_description.json, or repair "
        "that file."
    )


class NoSuchSubjectError(InputError):
    """A subject asked for is not in the dataset."""

    template = "--participant-label: no sub-{missing} in {bids_dir}. There are: {available}."


class NoSuchSessionError(InputError):
    """A session asked for is not in the dataset."""

    template = "--session-label: no ses-{missing} for the subjects asked for in {bids_dir}. There are: {available}."


class OpenFilesError(InputError):
    """More files would have to be open at once than the system allows."""

    template = (
        "The series of this run need more open files than the {limit} that the system allows (ulimit -Hn). Run fewer "
        "subjects at a time, with --participant-label."
    )


class NoDwiError(InputError):
    """No diffusion series is left after all filters."""

    template = "No diffusion series (suffix dwi, NIfTI) in {bids_dir} for {subjects}{filters}. {hint}"


class MissingGradientsError(InputError):
    """A series lacks its b-values or b-vectors."""

    template = (
        "{dwi}: no {kind} file applies to it. Every diffusion series needs its .bval and .bvec, beside it or "
        "inherited from a folder above."
    )


class AmbiguousFileError(InputError):
    """Two files apply equally to one series, which the inheritance principle forbids."""

    template = "{dwi}: {files} both apply to it. Leave one of them in that folder, or name them after their series."


class InvalidNameError(InputError):
    """A series has a name that BIDS does not allow."""

    template = "{path} is not a BIDS file name. Rename it, or run with --skip-bids-validation."


class MisplacedFileError(InputError):
    """A series lies in the folder of another subject than its name says."""

    template = "{path} lies in the folder {folder} but is named for another subject. Move or rename it."


class SameOutputError(InputError):
    """Two series would be restored into files of the same names."""

    template = (
        "The results of {files} would have the same names ({series}). Choose one of them with --bids-filter-file, or "
        "take the other out of the dataset."
    )


class UnavailableFileError(InputError):
    """A file is listed but its content is not there."""

    template = (
        "{path} is a link to a file that is not there. If this is a DataLad dataset, fetch it first (datalad get)."
    )


class PointerFileError(InputError):
    """A small text stands in the place of a file's content."""

    template = (
        "{path} holds a pointer of {tool} instead of its content. Fetch the content first (datalad get, git annex get, "
        "or git lfs pull)."
    )


class NoAccessError(InputError):
    """A file or folder of the dataset may not be read."""

    template = "{path} cannot be opened ({reason}). Change its permissions, or run as a user who may read it."


class NotAFileError(InputError):
    """A folder or device bears the name of a file."""

    template = "{path} is not a file. Put the file itself there, or take that name out of the dataset."


class EmptyFileError(InputError):
    """A file has no content at all."""

    template = "{path} is empty (0 bytes). Copy it again from where it came, or take it out of the dataset."


class UnusableT1wError(InputError):
    """The T1w image of a series is not there, or cannot be read."""

    template = "{problem} Or choose another T1w image with --bids-filter-file, or leave it out with --no-t1w."


class NotForQsireconError(InputError):
    """A series is to be handed over to QSIRecon, which would not see it."""

    template = (
        "--output-layout qsirecon: {dwi} is not in space {spaces}. QSIRecon takes preprocessed series: give QSIPrep's "
        "output as BIDS_DIR, or leave the option out."
    )


class StaleDatabaseError(InputError):
    """The pybids database given does not describe the dataset any more."""

    template = (
        "--bids-database-dir: {path} does not fit {bids_dir} ({reason}). Remove that folder so that it is made again."
    )


class BadFilterError(InputError):
    """The filter file asks for something that pybids cannot search."""

    template = (
        "--bids-filter-file: the filter for {query} cannot be used: {reason} Entities have the long names of pybids, "
        "such as direction and acquisition."
    )


class UnreadableSidecarError(InputError):
    """A JSON sidecar cannot be parsed."""

    template = "{path} is not valid JSON: {reason}. Repair the file."


class UnreadableImageError(InputError):
    """An image cannot be opened, or is truncated."""

    template = "{path} cannot be read as a NIfTI image: {reason}. Is the file complete?"


class VoxelTypeError(InputError):
    """The voxels of an image are not real numbers."""

    template = "{path}: its voxels are {kind}; real numbers are needed. Convert it (of complex data, the magnitude)."


class VoxelSizeError(InputError):
    """The voxels of an image have a size that none of a head can have."""

    template = (
        "{path}: voxels of {sizes} mm; from {least:g} to {largest:g} mm can be right. Correct the header; is it in "
        "another unit than mm?"
    )


class PlaceError(InputError):
    """The header of an image does not tell where its voxels lie."""

    template = "{path}: the {form} in its header {problem}. Correct the header, or convert the image again."


class EmptyVolumeError(InputError):
    """A volume of a series holds no signal at all."""

    template = (
        "{dwi}: volume {volume} (counted from 0) holds {content}. Remove it together with its b-value and b-vector, or "
        "convert the series again."
    )


class NotThreeDimensionalError(InputError):
    """An image that goes with a series is not a single volume."""

    template = "{path}: a {what} has three dimensions (x, y, z), this image has shape {shape}. Extract one volume."


class NotFourDimensionalError(InputError):
    """A diffusion series is not a 4-D image."""

    template = "{dwi}: a diffusion series has four dimensions (x, y, z, volume), this image has shape {shape}."


# Grids


class CoarserGridError(InputError):
    """The grid asked for is coarser than the acquired one: averaging, not super-resolution."""

    template = (
        "{dwi}: {asked} mm asked for and {acquired} mm acquired. Super-resolution cannot make voxels larger; ask for "
        "at most the acquired size along each axis."
    )


class ScaleTooLargeError(InputError):
    """The grid asked for is finer than any model can restore."""

    template = (
        "{dwi}: {asked} mm is {scale} times finer than the {acquired} mm acquired; the model {model} was made for at "
        "most {limit} times. Ask for larger voxels."
    )


# Devices and models


class DeviceError(InputError):
    """The device asked for is not there."""

    template = (
        "--device {device}: {reason}. Expose the GPU (docker run --gpus all, apptainer run --nv), or use --device cpu."
    )


class UnknownModelError(InputError):
    """The model is neither in the registry nor a model card."""

    template = "--model: no model named {name}. Known: {known}; or give the path of a model card (.json)."


# Diffusion series


class GradientFileError(InputError):
    """A b-value or b-vector file is not a table of numbers of the expected shape."""

    template = "{file} cannot be read as an FSL gradient file: {problem}. Numbers in rows are expected."


class GradientCountError(InputError):
    """b-values, b-vectors and volumes are not as many."""

    template = (
        "{dwi}: {n_bvals} b-values and {n_bvecs} b-vectors for {n_volumes} volumes. One of each per volume is needed; "
        "was a volume removed without its gradient?"
    )


class GradientValueError(InputError):
    """A b-value is negative or not a finite number."""

    template = "{dwi}: the b-value of volume {volume} (counted from 0) is {bval}. b-values are zero or positive, s/mm2."


class LargeBValueError(InputError):
    """A b-value is larger than any scanner gives."""

    template = (
        "{dwi}: the b-value of volume {volume} (counted from 0) is {bval:g}. b-values are in s/mm2; divide those in "
        "s/m2 by 1000000."
    )


class NoWeightedVolumeError(InputError):
    """All volumes count as free of diffusion weighting."""

    template = (
        "{dwi}: no b-value is larger than {threshold:g} s/mm2, the largest is {largest:g}; diffusion-weighted volumes "
        "are needed. Multiply b-values in ms/um2 by 1000; if these are right, lower --b0-threshold."
    )


class NoB0Error(InputError):
    """No volume counts as free of diffusion weighting."""

    template = (
        "{dwi}: no volume has a b-value up to {threshold:g} s/mm2, the lowest is {lowest:g}. At least one b0 is "
        "needed; if that volume is meant as b0, raise --b0-threshold."
    )


class GradientNormError(InputError):
    """The b-vector of a weighted volume is not a unit vector."""

    template = (
        "{dwi}: the b-vector of volume {volume} (counted from 0, b = {bval:g}) has length {norm:.3g} instead of 1. "
        "Are its rows and columns in order? A trace image among the volumes must be removed."
    )


class GradientDirectionsError(InputError):
    """Too few different directions for a diffusion tensor."""

    template = (
        "{dwi}: the directions of its {n_weighted} weighted volumes determine {rank} of the 6 elements of a diffusion "
        "tensor. At least six different directions are needed."
    )


class EmptyMaskError(InputError):
    """No brain was found, or the mask given is empty."""

    template = "{image}: {reason}. Give a brain mask with the series, or check that the image shows a head."


class T1wRegistrationError(InputError):
    """The T1w and the dMRI share too little to be aligned."""

    template = (
        "The T1w cannot be aligned with the dMRI: {reason}. Check that both show the same head, or leave the T1w out "
        "with --no-t1w."
    )


# Signal and training


class NoSignalError(InputError):
    """A shell without signal inside the brain mask."""

    template = (
        "The volumes with b = {shell} have no signal inside the brain mask (their median is not positive). "
        "Check the mask, and whether the b-values belong to these volumes."
    )


class TrainingDataError(InputError):
    """What was given cannot be trained on."""

    template = "{where}: {problem}"


class ModelCardError(InputError):
    """A file that is not a model card, or a card of something unknown."""

    template = "{card}: not a usable model card ({problem})."


class SignalError(InputError):
    """Inputs or a normalization that no model knows."""

    template = "Inputs of a model: {problem}."


class UntrainedModelError(InputError):
    """A preset is asked to restore before it was trained."""

    template = "--model: {name} has no weights; train it: bids-sr-train fit --preset {name}"


class CertainModelError(InputError):
    """The uncertainty is asked for, and the model does not tell it."""

    template = "--uncertainty: the model {name} does not tell how uncertain it is. Models that do: {known}."


class ModelWriteError(InputError):
    """Weights or a card that cannot be written."""

    template = "{path}: the model cannot be written ({reason}). Free some space, or name another folder."


class WeightsError(InputError):
    """Weights that are absent, changed, or belong to another architecture."""

    template = "{weights}: weights cannot be used: {problem}. Install them again, or train anew."


class WeightsFileError(InputError):
    """A file that should hold the weights of VGG19, and does not."""

    template = (
        "{path}: no weights of VGG19: {problem}. Give torchvision's vgg19 as .safetensors, or as .pth of its state "
        "dictionary."
    )


# Running


class MaskGridError(InputError):
    """A brain mask that does not lie on the grid of its series."""

    template = (
        "{mask}: the mask has shape {found} and the series {expected}, or their affines differ. A mask must lie on the "
        "grid of its series; resample it, or take it out of the dataset to have one made."
    )


class PluginFileError(InputError):
    """The file that describes the workflow engine's plugin cannot be used."""

    template = "--use-plugin: {path}: {reason}"


class ResourceMonitorError(InputError):
    """The resource monitor needs a package that is not installed."""

    template = "--resource-monitor: the package psutil is not installed. Install it, or leave the option out."


class NoRecordsError(InputError):
    """Reports or methods are asked for, but nothing was run yet."""

    template = (
        "{output_dir} holds no records of finished series, so there is nothing to report. Run the app without "
        "--reports-only and --boilerplate-only first, or check --participant-label."
    )


class DiskFullError(InputError):
    """Nothing more can be written."""

    template = (
        "The disk is full, or your quota is used up ({reason}). Free some space, or name other folders for output and "
        "work; the same command then goes on where it stopped."
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception means that no space is left to write to."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_memory_error(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out, whichever library raised it."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    if isinstance(error, SystemError):
        # Extensions that were refused memory and forgot to say so; without such a limit it is a bug of theirs.
        is_limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        return is_limited and any(phrase in text for phrase in _SILENT)
    if isinstance(error, ImportError | OSError) and text.strip().endswith(_NO_ROOM):
        return True
    return isinstance(error, RuntimeError | OSError) and any(phrase in text for phrase in _MEMORY_PHRASES)


class WorkerKilledError(BidsSrError):
    """A worker process disappeared, which nearly always is the kernel ending a process that took too much memory."""

    template = (
        "The worker process was killed, most likely because memory ran out. Raise --mem (and the memory of the job), "
        "lower --nprocs, or ask for coarser voxels."
    )
    exit_code: ClassVar[int] = 137


# Demonstration


class DemoOutputError(InputError):
    """The demonstration dataset would be written over something."""

    template = "{out} exists and is not an empty folder. Name a new one."


class MissingExtraError(InputError):
    """A command needs a package that only an extra installs."""

    template = "{what} needs {package}, which is not installed. Install it with: pip install 'bids_sr[{extra}]'"


# Evaluation


class RestorationKilledError(BidsSrError):
    """The process of a restoration disappeared."""

    template = (
        "{label}: the process that restored it was killed, most likely because memory ran out. Give the job more "
        "memory; what is finished is kept."
    )
    exit_code: ClassVar[int] = 137


# Group level


class NoResultsError(InputError):
    """The group level is asked for, but nothing was run yet."""

    template = (
        "{output_dir} holds no records of series{chosen}, so there is nothing to gather. Run the participant level "
        "first, or check OUTPUT_DIR, --participant-label and --session-label."
    )


class MissingRecordError(InputError):
    """A series of the dataset of which the output says nothing."""

    template = (
        "it has no record: it is still running, was never run, could not be started (the logs tell why), or its "
        "outputs were removed"
    )


class DamagedRecordError(InputError):
    """A record that is not whole, or not what this version writes."""

    template = "its record cannot be used ({reason}); run the participant level again for it"


class FailedSeriesError(InputError):
    """A series of which a stage failed."""

    template = "it failed{where}: {message}"


class DamagedTableError(InputError):
    """A table that is gone, truncated or changed."""

    template = "its table {table} {problem}; run the participant level again for it"
