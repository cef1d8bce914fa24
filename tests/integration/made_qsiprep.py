"""The small made head as QSIPrep would write it: its names, its axes, its gradients, and all that lies around."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

SPACE = "ACPC"
SESSIONS = ("1", "2")
#: What stands beside the files that matter, by session and in the subject's anat folder, with a word as content.
AROUND = [
    "{stem}_desc-confounds_timeseries.tsv",
    "{stem}_space-ACPC_desc-image_qc.tsv",
    "{stem}_space-ACPC_desc-slice_qc.json",
    "{stem}_space-ACPC_desc-preproc_dwi.b_table.txt",
]
TRANSFORMS = [
    "sub-01_from-ACPC_to-MNI152NLin2009cAsym_mode-image_xfm.h5",
    "sub-01_from-MNI152NLin2009cAsym_to-ACPC_mode-image_xfm.h5",
    "sub-01_from-ACPC_to-anat_mode-image_xfm.mat",
]


def margin(session: str) -> int:
    """Voxels at the border that the mask of a session leaves out, so that masks tell sessions apart."""
    return 4 + int(session)


def as_qsiprep(raw: Path, folder: Path, sessions: tuple[str, ...] = SESSIONS) -> None:
    """A QSIPrep dataset of one subject, made of a raw one without sessions that carries its truth.

    Series lie in LPS+ axes with b-vectors along them, as QSIPrep has them; the gradients of the sessions differ.
    """
    folder.mkdir(parents=True)
    generator = [{"Name": "QSIPrep", "Version": "1.0.0", "CodeURL": "https://github.com/PennLINC/qsiprep"}]
    description = {"Name": "Made", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": generator}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    for name in ("dwiqc.json", "sub-01.html"):
        (folder / name).write_text("{}")
    for name in ("logs", "sub-01/figures", "sub-01/anat"):
        (folder / name).mkdir(parents=True)
    _write_anatomy(raw, folder / "sub-01" / "anat")
    for session in sessions:
        _write_session(raw, folder / "sub-01" / f"ses-{session}", session)


def _write_anatomy(raw: Path, anat: Path) -> None:
    """The T1w in the space of the series, in LPS+ axes, and in a template's; its masks, and transforms."""
    (truth,) = (raw / "derivatives" / "truth").rglob("*_desc-truth_dwi.json")
    moved = nib.load(raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    place = np.array(json.loads(truth.read_text())["T1wToDwi"]) @ moved.affine
    t1w = in_lps(nib.Nifti1Image(np.asarray(moved.dataobj), place))
    mask = nib.Nifti1Image((np.asarray(t1w.dataobj) > 100).astype(np.uint8), t1w.affine)
    t1w.to_filename(anat / f"sub-01_space-{SPACE}_desc-preproc_T1w.nii.gz")
    (anat / f"sub-01_space-{SPACE}_desc-preproc_T1w.json").write_text('{"SkullStripped": false}')
    mask.to_filename(anat / f"sub-01_space-{SPACE}_desc-brain_mask.nii.gz")
    mask.to_filename(anat / f"sub-01_space-{SPACE}_dseg.nii.gz")
    template = nib.Nifti1Image(np.asarray(t1w.dataobj)[::-1], np.diag([1.5, 1.5, 1.5, 1]))
    template.to_filename(anat / "sub-01_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz")
    for name in TRANSFORMS:
        (anat / name).write_text("transform")


def _write_session(raw: Path, folder: Path, session: str) -> None:
    """A preprocessed series with its mask, its reference and its gradients in three forms."""
    (folder / "dwi").mkdir(parents=True)
    (folder / "anat").mkdir()
    stem = f"sub-01_ses-{session}"
    (folder / "anat" / f"{stem}_from-orig_to-anat_mode-image_xfm.txt").write_text("transform")
    for name in AROUND:
        (folder / "dwi" / name.format(stem=stem)).write_text("{}")
    start = folder / "dwi" / f"{stem}_space-{SPACE}"
    acquired = nib.load(raw / "sub-01" / "dwi" / "sub-01_dwi.nii.gz")
    series = in_lps(acquired)
    series.to_filename(f"{start}_desc-preproc_dwi.nii.gz")
    Path(f"{start}_desc-preproc_dwi.json").write_text(json.dumps({"RepetitionTime": 5.0, "EchoTime": 0.09}))
    nib.Nifti1Image(np.asarray(series.dataobj[..., 0]), series.affine).to_filename(f"{start}_dwiref.nii.gz")
    cnr = nib.Nifti1Image(np.asarray(series.dataobj[..., :2]), series.affine)
    cnr.to_filename(f"{start}_model-eddy_stat-cnr_dwimap.nii.gz")
    mask, rim = np.zeros(series.shape[:3], np.uint8), margin(session)
    mask[rim:-rim, rim:-rim, rim:-rim] = 1
    nib.Nifti1Image(mask, series.affine).to_filename(f"{start}_desc-brain_mask.nii.gz")
    _write_gradients(raw / "sub-01" / "dwi" / "sub-01_dwi", f"{start}_desc-preproc_dwi", acquired, session)


def _write_gradients(source: Path, target: str, acquired: nib.Nifti1Image, session: str) -> None:
    """FSL files with directions along LPS+ axes, and MRtrix's table of them in the world."""
    bvals = np.loadtxt(f"{source}.bval")
    bvals[bvals > 0] += int(session)
    # Of an image whose axes have a negative determinant, FSL's directions are along the voxel axes as they are.
    assert np.linalg.det(acquired.affine[:3, :3]) < 0
    world = np.loadtxt(f"{source}.bvec").T @ np.sign(acquired.affine[:3, :3]).T
    np.savetxt(f"{target}.bval", bvals[None], fmt="%g")
    np.savetxt(f"{target}.bvec", (world * [-1, -1, 1]).T, fmt="%.6f")
    np.savetxt(f"{target}.b", np.column_stack([world, bvals]), fmt=["%.8f", "%.8f", "%.8f", "%g"])


def in_lps(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """An image with its axes towards left, back and head, whose voxels stay where they are."""
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(("L", "P", "S")))
    turned = image.as_reoriented(turn)
    made = nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine)
    made.set_sform(made.affine, 1)
    made.set_qform(made.affine, 1)
    made.header.set_xyzt_units("mm", "sec")
    return made
