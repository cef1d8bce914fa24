"""What the files of the made dataset say about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bids_sr import __version__

BIDS_VERSION = "1.10.0"
AUTHORS = ["The bids_sr developers", "The makers of the ICBM152 average"]
SOFTWARE = {"Name": "bids_sr", "Version": __version__, "Description": "bids-sr-demo, a made head with known truth"}

#: Nothing was scanned; the times and angles are those of a common protocol, for software that asks for them.
SCANNER: Mapping[str, Any] = {
    "Manufacturer": "none (simulated)",
    "ManufacturersModelName": "bids-sr-demo",
    "SoftwareVersions": __version__,
    "DeviceSerialNumber": "none",
    "StationName": "none",
    "InstitutionName": "none",
    "InstitutionAddress": "none",
    "InstitutionalDepartmentName": "none",
    "MagneticFieldStrength": 3,
    "ReceiveCoilName": "none",
    "ReceiveCoilActiveElements": "none",
    "MatrixCoilMode": "none",
    "CoilCombinationMethod": "none",
    "DwellTime": 1e-5,
    "ConversionSoftware": "bids-sr-demo",
}

RAW_DWI: Mapping[str, Any] = {
    **SCANNER,
    "PulseSequenceType": "simulated diffusion-weighted spin echo",
    "ScanningSequence": "SE",
    "SequenceVariant": "NONE",
    "SequenceName": "simulated",
    "ScanOptions": "none",
    "PulseSequenceDetails": "Sum of tissues, Gaussian point-spread function as wide as a voxel, Rician noise",
    "MRAcquisitionType": "3D",
    "EchoTime": 0.085,
    "RepetitionTime": 8.0,
    "FlipAngle": 90,
    "PhaseEncodingDirection": "j-",
    "TotalReadoutTime": 0.05,
    "EffectiveEchoSpacing": 0.0005,
    "NonlinearGradientCorrection": False,
    "MTState": False,
    "SpoilingState": False,
    "MultipartID": "dwi_1",
}

RAW_T1W: Mapping[str, Any] = {
    **SCANNER,
    "PulseSequenceType": "simulated gradient echo",
    "ScanningSequence": "GR",
    "SequenceVariant": "NONE",
    "SequenceName": "simulated",
    "ScanOptions": "none",
    "PulseSequenceDetails": "Brightness of the tissues, Rician noise",
    "MRAcquisitionType": "3D",
    "EchoTime": 0.003,
    "RepetitionTime": 2.3,
    "InversionTime": 0.9,
    "FlipAngle": 8,
    "NonlinearGradientCorrection": False,
    "MTState": False,
    "SpoilingState": False,
}

RAW_DATASET: Mapping[str, Any] = {
    "Name": "Made head for bids_sr",
    "BIDSVersion": BIDS_VERSION,
    "DatasetType": "raw",
    "License": "CC0",
    "Authors": AUTHORS,
    "GeneratedBy": [SOFTWARE],
    "SourceDatasets": [{"URL": "https://nist.mni.mcgill.ca/icbm-152-nonlinear-atlases-2009/"}],
    "HEDVersion": "8.3.0",
}

TRUTH_DATASET: Mapping[str, Any] = {
    "Name": "Truth of the made head for bids_sr",
    "BIDSVersion": BIDS_VERSION,
    "DatasetType": "derivative",
    "License": "CC0",
    "Authors": AUTHORS,
    "GeneratedBy": [SOFTWARE],
    "SourceDatasets": [{"URL": "../.."}],
    "DatasetLinks": {"raw": "../.."},
}

RAW_README = """# A made head

Nobody was scanned for this dataset. `bids-sr-demo` made it: a head of fluid, grey and white matter, fibres, skull and
scalp, measured by a simulated scanner with large voxels and noise. `derivatives/truth` holds what the scanner would
have seen without noise and with voxels half as wide. Before the T1w the subject moved a few degrees and millimetres.

The full head is shaped after the ICBM152 2009a nonlinear symmetric average (Fonov et al. 2011, NeuroImage 54:313;
copyright 1993-2009 Louis Collins, McConnell Brain Imaging Centre, McGill University), bent at random. Its fibres are
currents led through the white matter: a plausible picture, not anybody's anatomy.
"""

TRUTH_README = """# The truth of the made head

The noise-free signal on voxels half as wide as the scan's, the diffusion tensor fitted to it (weighted least squares),
the brain mask and the tissues (1 CSF, 2 grey matter, 3 white matter). `T1wToDwi` in the sidecar of the series is the
rigid motion of the world, in mm, that brings the raw T1w into place: new affine = T1wToDwi times old affine.
"""

#: The gradient files of a derivative series are missing from the validator's rules.
TRUTH_IGNORED = "*.bval\n*.bvec\n"

DESCRIPTIONS = (
    "desc_id\tdescription\n"
    "desc-truth\tNoise-free signal of the made head at full resolution, and what follows from it\n"
    "desc-brain\tBrain with its ventricles\n"
)

DESCRIPTIONS_COLUMNS: Mapping[str, Any] = {
    "Description": "What the desc- labels of the files mean",
    "desc_id": {"Description": "Label"},
    "description": {"Description": "What files with this label hold"},
}

PARTICIPANTS = "participant_id\tspecies\tage\tsex\thandedness\nsub-01\tphantom\tn/a\tn/a\tn/a\n"

PARTICIPANTS_COLUMNS: Mapping[str, Any] = {
    "participant_id": {"Description": "The one made subject"},
    "species": {"Description": "What was measured: a numerical phantom"},
    "age": {"Description": "A made head has no age", "Units": "year"},
    "sex": {"Description": "A made head has no sex"},
    "handedness": {"Description": "A made head has no hands"},
}
