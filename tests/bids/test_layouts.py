"""Datasets as other people lay them out: what is a series is found, what is none is left alone, and errors tell which.

The shapes are those of public examples (bids-examples) and of the specification; the files are made.
"""

import json
import shutil
from dataclasses import dataclass

import nibabel as nib
import pytest

from bids_sr.cli.app import main
from tests.skeleton import SIDECAR, Skeleton, qsiprep


@dataclass(frozen=True)
class Told:
    """What a dry run says: series and their T1w, the exit code, and words that must be there."""

    series: dict[str, str]
    code: int = 0
    words: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


NONE = "none"
LAYOUTS = {}


def layout(told):
    """Add a function that fills a dataset to the table."""

    def add(fill):
        LAYOUTS[fill.__name__] = (fill, told)
        return fill

    return add


def without_gradients(data, *stems):
    """Series that inherit what they need."""
    for stem in stems:
        data.dwi(stem, gradients=False, sidecar=False)


@layout(Told({"sub-01 ses-mri": "sub-01_ses-mri_acq-mprage_T1w.nii.gz", "sub-02 ses-mri": NONE}))
def several_modalities(data):
    """Like ds000117: MEG of one session, MRI of the other, an empty room, processed MEG beside it."""
    for subject in ("01", "02"):
        data.dwi(f"sub-{subject}_ses-mri")
        data.text(f"sub-{subject}/ses-meg/meg/sub-{subject}_ses-meg_task-faces_run-01_meg.fif", "x")
        data.text(f"sub-{subject}/ses-mri/fmap/sub-{subject}_ses-mri_phasediff.nii.gz", "x")
        data.text(f"sub-{subject}/ses-mri/func/sub-{subject}_ses-mri_task-faces_run-01_bold.nii.gz", "x")
        data.text(f"sub-{subject}/ses-mri/anat/sub-{subject}_ses-mri_run-1_echo-1_FLASH.nii.gz", "x")
    data.t1w("sub-01_ses-mri_acq-mprage")
    data.text("sub-emptyroom/ses-20090409/meg/sub-emptyroom_ses-20090409_task-noise_meg.fif", "x")
    data.text("derivatives/meg_derivatives/sub-01/ses-meg/meg/sub-01_ses-meg_task-faces_proc-sss_meg.fif", "x")


@layout(
    Told(
        {f"sub-0{n} ses-{s}": f"sub-0{n}_ses-{s}_T1w.nii.gz" for n in (1, 2) for s in ("retest", "test")},
    )
)
def retest_of_everybody(data):
    """Like ds114: two sessions, one pair of gradient files and one sidecar for everybody, at the root."""
    data.gradients("dwi")
    data.json("dwi.json", SIDECAR)
    for subject in ("01", "02"):
        for session in ("test", "retest"):
            without_gradients(data, f"sub-{subject}_ses-{session}")
            data.t1w(f"sub-{subject}_ses-{session}")


@layout(
    Told({f"sub-01 acq-{a} dir-{d} run-{r}": NONE for a in ("b1000", "b2000") for d in ("AP", "PA") for r in (1, 2)})
)
def split_by_acquisition(data):
    """Shells in files of their own, each with the gradients of its shell; both directions, two runs."""
    for shell in ("b1000", "b2000"):
        data.gradients(f"acq-{shell}_dwi")
        for direction in ("AP", "PA"):
            without_gradients(data, *(f"sub-01_acq-{shell}_dir-{direction}_run-{run}" for run in (1, 2)))


@layout(Told({"sub-01 ses-1": NONE, "sub-01 ses-2": NONE}))
def inherited_by_session(data):
    """Gradients and sidecars at the level of the session."""
    for session in ("1", "2"):
        without_gradients(data, f"sub-01_ses-{session}")
        data.gradients(f"sub-01/ses-{session}/sub-01_ses-{session}_dwi")
        data.json(f"sub-01/ses-{session}/sub-01_ses-{session}_dwi.json", SIDECAR)


@layout(Told({"sub-01": NONE, "sub-03": NONE}, 2, ("cannot run", "sub-02_dwi.nii.gz", ".bval")))
def one_without_bval(data):
    """One subject lost its b-values."""
    for subject in ("01", "02", "03"):
        data.dwi(f"sub-{subject}")
    (data.root / "sub-02/dwi/sub-02_dwi.bval").unlink()


@layout(Told({"sub-01": "sub-01_T1w.nii.gz"}))
def siblings_of_every_kind(data):
    """Folders of other techniques, with files and folders that only look like images."""
    data.dwi("sub-01")
    data.t1w("sub-01")
    for name in ("meg/sub-01_task-rest_meg.ds/sub-01_task-rest_meg.res4", "meg/sub-01_task-rest_meg.ds/hz.ds/dwi"):
        data.text(f"sub-01/{name}", "x")
    for name in ("micr/sub-01_sample-A_SEM.ome.zarr/0/0", "micr/sub-01_sample-A_stain-LFB_BF.png"):
        data.text(f"sub-01/{name}", "x")
    for name in ("eeg/sub-01_task-rest_eeg.vhdr", "ieeg/sub-01_task-rest_ieeg.mefd/dwi/x", "pet/sub-01_pet.nii.gz"):
        data.text(f"sub-01/{name}", "x")
    for name in ("perf/sub-01_asl.nii.gz", "motion/sub-01_task-walk_tracksys-a_motion.tsv", "beh/sub-01_beh.tsv"):
        data.text(f"sub-01/{name}", "x")
    for name in ("phenotype/measure.tsv", "stimuli/dwi.nii.gz", "code/sub-09_dwi.nii.gz", "CHANGES"):
        data.text(name, "x")


@layout(Told({"sub-01 dir-AP": NONE}))
def references_beside_the_series(data):
    """Single-band references and products of the scanner lie in the same folder."""
    data.dwi("sub-01_dir-AP")
    for suffix in ("sbref", "ADC", "FA", "trace", "expADC", "S0map", "colFA"):
        data.image("sub-01_dir-AP", suffix, "dwi")


@layout(Told({"sub-01 part-mag": "sub-01_part-mag_T1w.nii.gz"}))
def magnitude_and_phase(data):
    """Both parts of the signal, of the T1w too."""
    for part in ("mag", "phase"):
        data.dwi(f"sub-01_part-{part}")
        data.t1w(f"sub-01_part-{part}")


@layout(Told({"sub-01": NONE}))
def only_the_phase_of_the_t1w(data):
    """A phase image shows no anatomy that could guide a model."""
    data.dwi("sub-01")
    data.t1w("sub-01_part-phase")


@layout(Told({}, 2, ("No diffusion series",)))
def real_and_imaginary(data):
    """Complex parts alone."""
    for part in ("real", "imag"):
        data.dwi(f"sub-01_part-{part}")


@layout(Told({"sub-01": NONE}, 2, ("sub-02_echo-1_dwi.nii.gz is not a BIDS file name",)))
def multi_echo(data):
    """BIDS has no echoes of diffusion series."""
    data.dwi("sub-01")
    data.dwi("sub-02_echo-1")


@layout(Told({"sub-01": NONE, "sub-02 echo-1": NONE}, options=("--skip-bids-validation",)))
def multi_echo_on_request(data):
    """They run where names are not checked."""
    data.dwi("sub-01")
    data.dwi("sub-02_echo-1")


@layout(Told({"sub-01": NONE}))
def ignored_by_the_dataset(data):
    """What .bidsignore lists is no part of the dataset."""
    data.dwi("sub-01")
    data.dwi("sub-01_old-yes")
    data.dwi("sub-03")
    data.text(".bidsignore", "# leftovers\n*_old-*\n/sub-03/\n\n*.log\n")


@layout(Told({"sub-01": NONE, "sub-02 echo-1": NONE}, options=("--skip-bids-validation",)))
def ignored_by_the_validator_alone(data):
    """Series with names of their own have to be listed there for the validator; they run where names are free."""
    multi_echo(data)
    data.text(".bidsignore", "*_echo-*_dwi.*\n")


@layout(Told({"sub-01": NONE}))
def ignored_with_exceptions(data):
    """A later line with an exclamation mark takes files back in."""
    data.dwi("sub-01")
    data.dwi("sub-02")
    data.text(".bidsignore", "sub-*/**\n!sub-01/**\n")


@layout(Told({"sub-01 ses-1": "sub-01_T1w.nii.gz", "sub-01 ses-2": "sub-01_T1w.nii.gz"}))
def t1w_of_no_session(data):
    """One anatomy for all sessions."""
    for session in ("1", "2"):
        data.dwi(f"sub-01_ses-{session}")
    data.t1w("sub-01")


@layout(Told({"sub-01": "sub-01_rec-norm_T1w.nii.gz", "sub-02": NONE, "sub-03": "sub-03_T1w.nii.gz"}))
def other_anatomies(data):
    """Reconstructions, contrast agents, MP2RAGE and face masks."""
    for subject in ("01", "02", "03"):
        data.dwi(f"sub-{subject}")
    data.t1w("sub-01_rec-norm")
    data.t1w("sub-01_ce-gadolinium")
    for stem, suffix in (("sub-02_inv-1_part-mag", "MP2RAGE"), ("sub-02", "UNIT1"), ("sub-02", "T2w")):
        data.image(stem, suffix, "anat")
    data.t1w("sub-03")
    data.image("sub-03_mod-T1w", "defacemask", "anat")


@layout(Told({"sub-01": NONE}))
def datasets_inside(data):
    """The sources and derivatives of a dataset hold subjects too."""
    data.dwi("sub-01")
    Skeleton(data.root / "sourcedata" / "raw").dwi("sub-02")
    qsiprep(data.root / "derivatives" / "qsiprep", subject="01")


@layout(Told({"sub-01 space-ACPC": "sub-01_space-ACPC_desc-preproc_T1w.nii.gz"}))
def derivative(data):
    """A preprocessed dataset as input, with pictures and confounds beside the images."""
    shutil.rmtree(data.root)
    made = qsiprep(data.root)
    made.text("sub-01/dwi/sub-01_desc-confounds_timeseries.tsv", "x")
    made.text("sub-01/figures/sub-01_desc-sampling_dwi.gif", "x")
    made.image("sub-01_space-ACPC", "dwiref", "dwi")
    made.text("sub-01.html", "x")


@layout(Told({"sub-01 space-T1w": "sub-01_desc-preproc_T1w.nii.gz"}))
def derivative_that_does_not_say_so(data):
    """Older programs wrote what made a dataset, but no DatasetType."""
    derivative(data)
    shutil.rmtree(data.root)
    made = qsiprep(data.root, space="T1w")
    description = json.loads((data.root / "dataset_description.json").read_text())
    del description["DatasetType"], description["GeneratedBy"]
    made.json("dataset_description.json", description | {"PipelineDescription": {"Name": "qsiprep", "Version": "0.6"}})


@layout(Told({"sub-A1b": NONE, "sub-control01": NONE, "sub-2 run-01": NONE, "sub-10 run-01": NONE}))
def labels_of_every_kind(data):
    """Letters, digits, no padding."""
    for stem in ("sub-A1b", "sub-control01", "sub-2_run-01", "sub-10_run-01"):
        data.dwi(stem)


@layout(Told({"sub-01 chunk-1": NONE, "sub-01 chunk-2": NONE}))
def chunks(data):
    """A field of view in two parts."""
    for chunk in (1, 2):
        data.dwi(f"sub-01_chunk-{chunk}")


@layout(Told({"sub-01": NONE}, 2, ("sub-01_dwi.nii and", "same names")))
def the_same_series_twice(data):
    """Compressed and not."""
    file = data.dwi("sub-01")
    nib.load(file).to_filename(file.with_suffix(""))


@layout(Told({}, 2, ("No diffusion series", "sub-*_dwi.nii.gz")))
def no_diffusion(data):
    """Anatomy alone."""
    data.t1w("sub-01")


@layout(Told({}, 2, ("is not a BIDS dataset", "dataset_description.json")))
def one_level_too_high(data):
    """The folder that holds the dataset, not the dataset."""
    shutil.rmtree(data.root)
    Skeleton(data.root / "rawdata").dwi("sub-01")


@layout(Told({"sub-02": NONE}, 2, ("sub-01", "not there", "datalad get")))
def half_fetched(data):
    """A DataLad dataset of which one file was fetched."""
    file = data.dwi("sub-01")
    file.unlink()
    file.symlink_to("../../.git/annex/objects/xx/yy")
    data.dwi("sub-02")


@layout(Told({"sub-01": NONE}, options=("--participant-label", "sub-01")))
def only_the_subject_asked_for_is_looked_at(data):
    """What is wrong with others does not matter."""
    data.dwi("sub-01")
    data.dwi("sub-02", gradients=False)
    data.text("participants.tsv", "participant_id\nsub-01\nsub-77\n")


@layout(Told({}, 2, ("sub-01_ses-retest_dwi.nii.gz is empty", "sub-02_ses-test_dwi.nii.gz is empty")))
def images_of_no_bytes(data):
    """The public examples hold images of no bytes: each is told, and none is a traceback."""
    data.gradients("dwi")
    for subject in ("01", "02"):
        for session in ("test", "retest"):
            data.text(f"sub-{subject}/ses-{session}/dwi/sub-{subject}_ses-{session}_dwi.nii.gz", "")


@layout(Told({f"sub-100307 dir-{d}{n}": NONE for n in (95, 96) for d in ("LR", "RL")}))
def directions_with_numbers(data):
    """Like the example of the HCP: directions and their count in one label, a reference beside each series."""
    for name in ("LR95", "RL95", "LR96", "RL96"):
        data.dwi(f"sub-100307_dir-{name}")
        data.image(f"sub-100307_dir-{name}", "sbref", "dwi")
    data.image("sub-100307_run-01", "T2w", "anat")


@layout(Told({"sub-01": "sub-01_T1w.nii"}))
def without_compression(data):
    """Images as .nii."""
    for file in (data.dwi("sub-01"), data.t1w("sub-01")):
        nib.load(file).to_filename(file.with_suffix(""))
        file.unlink()


@layout(Told({f"sub-01 run-1 chunk-{chunk}": NONE for chunk in (1, 2)}))
def chunks_that_inherit(data):
    """Parts of a field of view with the gradients of the whole."""
    data.gradients("sub-01/dwi/sub-01_run-1_dwi")
    without_gradients(data, *(f"sub-01_run-1_chunk-{chunk}" for chunk in (1, 2)))


@layout(Told({"sub-01 space-T1w": "sub-01_desc-preproc_T1w.nii.gz"}))
def derivative_with_models(data):
    """Like dwi_deriv: maps of models and streamlines beside the preprocessed series."""
    shutil.rmtree(data.root)
    made = qsiprep(data.root, space="T1w")
    for name in ("model-DTI_param-FA", "model-CSD_param-wm_desc-preproc"):
        made.image(f"sub-01_space-T1w_{name}", "dwimap", "dwi")
    made.text("sub-01/dwi/sub-01_space-T1w_desc-preproc_tractography.tck", "x")


@layout(Told({"sub-01": "sub-01_T1w.nii.gz", "sub-02": NONE}))
def copies_further_down(data):
    """Somebody keeps old files in a folder of the dataset: neither their series nor their T1w are its own."""
    data.dwi("sub-01")
    data.dwi("sub-02")
    data.t1w("sub-01")
    shutil.copytree(data.root / "sub-01", data.root / "backup" / "sub-01")
    Skeleton(data.root / "old").t1w("sub-02")


@layout(Told({"sub-01": NONE, "sub-02": NONE}, 2, ("sub-03/dwi/sub-04_dwi.nii.gz", "named for another subject")))
def file_of_another_subject(data):
    """A file that was copied and not renamed is told, not left out."""
    file = data.dwi("sub-01")
    data.dwi("sub-02")
    (data.root / "sub-03" / "dwi").mkdir(parents=True)
    shutil.copy(file, data.root / "sub-03" / "dwi" / "sub-04_dwi.nii.gz")


@layout(Told({"sub-01": NONE}, 2, ("named for another subject",), ("--skip-bids-validation",)))
def file_of_another_subject_who_is_there(data):
    """Also where names are free: its results would be taken for those of the other."""
    file = data.dwi("sub-01")
    (data.root / "sub-02" / "dwi").mkdir(parents=True)
    shutil.copy(file, data.root / "sub-02" / "dwi" / "sub-01_acq-x_dwi.nii.gz")


@layout(Told({f"sub-01 ses-{n}": f"sub-01_ses-{t}_T1w.nii.gz" for n, t in ((1, 1), (2, 3), (3, 3))}))
def sessions_table_of_another_encoding(data):
    """Dates are read from lines that hold them; a broken byte elsewhere does no harm."""
    for session in (1, 2, 3):
        data.dwi(f"sub-01_ses-{session}")
    data.t1w("sub-01_ses-1")
    data.t1w("sub-01_ses-3")
    rows = "site\tsession_id\tacq_time\nK\xf6ln\tses-1\t2001-01-01T00:00:00\nK\xf6ln\tses-2\t2009-01-01T00:00:00\n"
    table = data.root / "sub-01" / "sub-01_sessions.tsv"
    table.write_bytes(f"{rows}K\xf6ln\tses-3\t2009-01-02T00:00:00\nK\xf6ln\n".encode("latin-1"))


@layout(Told({}, 2, ("No diffusion series", "any subject", "no sub-* folder")))
def participants_without_folders(data):
    """A table of participants alone."""
    data.text("participants.tsv", "participant_id\nsub-01\n")


@layout(Told({}, 2, ("no sub-a1B", "There are: A1b"), ("--participant-label", "sub-a1B")))
def label_in_other_letters(data):
    """Labels are cased."""
    data.dwi("sub-A1b")


@layout(Told({"sub-01": NONE, "sub-02": NONE}, options=("--participant-label", "sub-01,02", "01")))
def labels_with_and_without_prefix(data):
    """Separated by commas and blanks, once each."""
    for subject in ("01", "02", "03"):
        data.dwi(f"sub-{subject}")


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_dry_run_finds_the_series_and_says_what_is_wrong(tmp_path, capsys, name):
    fill, told = LAYOUTS[name]
    data = Skeleton(tmp_path / "data")
    fill(data)
    before = sorted(tmp_path.rglob("*"))
    words = [str(data.root), str(tmp_path / "out"), "participant", "--scale", "2", "--model", "cubic", "--dry-run"]
    code = main([*words, *told.options])
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert (series_of(captured.out), code) == (told.series, told.code), text
    assert all(word in text for word in told.words), text
    assert "Traceback" not in text
    assert sorted(tmp_path.rglob("*")) == before


def series_of(table):
    """Series of a table, with their T1w."""
    lines = table.splitlines()
    heading = lines[0] if lines else ""
    found = {}
    for line in lines[1:]:
        if not line.startswith("sub-"):
            break
        found[line[: heading.index("volumes")].strip()] = line[heading.index("t1w") :].split()[0]
    return found
