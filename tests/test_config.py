"""A configuration survives its file, and impossible ones are refused with the option's name."""

import json
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.config import Config, check, options_from_toml, parse_memory, read_filters
from bids_sr.errors import (
    ConfigurationError,
    ForeignOutputError,
    InputError,
    InputInsideOutputError,
    MissingPathError,
    NotWritableError,
    OutputInsideInputError,
    OutputIsInputError,
    WorkInsideInputError,
)

text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
paths = text.filter(lambda name: name not in (".", "..") and "/" not in name).map(lambda name: Path("/") / name)
triples = st.tuples(*[st.floats(0.1, 9)] * 3)
values = st.one_of(st.none(), text, st.integers(0, 99), st.lists(text, max_size=2))


@given(
    st.builds(
        Config,
        bids_dir=paths, output_dir=paths, work_dir=paths,
        participants=st.lists(text, max_size=2).map(tuple),
        filters=st.dictionaries(text, st.dictionaries(text, values, max_size=2), max_size=2),
        derivatives=st.dictionaries(text, paths, max_size=2),
        output_resolution=st.none() | triples, scale=st.none() | triples, plugin_file=st.none() | paths,
        b0_threshold=st.floats(0, 1e4), memory_gb=st.floats(1, 1e3), nprocs=st.integers(1, 99), sloppy=st.booleans(),
    )
)  # fmt: skip
def test_toml_round_trip(config):
    assert Config.from_toml(config.to_toml()) == config


def test_toml_keeps_control_characters():
    config = Config(Path("/a\x7f\tb"), Path("/b"), Path("/c"), command_line="a 'b\\n' \x01 \"q\"")
    assert Config.from_toml(config.to_toml()) == config


def test_every_field_can_be_read_from_toml():
    config = Config(Path("/a"), Path("/b"), Path("/c"), scale=(2.0, 2.0, 2.0))
    config = replace(config, output_resolution=(1.0, 1.0, 1.0), plugin_file=Path("/p"), bids_database_dir=Path("/d"))
    assert set(tomllib.loads(config.to_toml())) == {item.name for item in fields(Config)}


@pytest.mark.parametrize(
    "document",
    [
        "nprocs = '4'",
        "nprocs = true",
        "sloppy = 1",
        "scale = [1, 2]",
        "participants = [1]",
        "bids_dir = 3",
        "surprise = 1",
        "filters = 3",
        "memory_gb = 'much'",
    ],
)
def test_wrong_toml_names_the_option(document):
    with pytest.raises(ConfigurationError, match=document.partition(" ")[0]):
        options_from_toml(document)


def test_one_number_in_toml_serves_all_axes():
    assert options_from_toml("scale = 2") == {"scale": (2.0, 2.0, 2.0)}


@pytest.mark.parametrize(
    ("amount", "gb"),
    [
        ("16", 16),
        ("16G", 16),
        ("1.5GB", 1.5),
        ("16384M", 16),
        ("16384 MiB", 16),
        ("2t", 2048),
        (".5g", 0.5),
        ("1048576k", 1),
    ],
)
def test_memory(amount, gb):
    assert parse_memory(amount) == gb


@pytest.mark.parametrize("amount", ["", "G", "-1", "0", "1Q", "1.5.2", "16 gigs", "nan", "inf"])
def test_not_memory(amount):
    with pytest.raises(ValueError, match="amount of memory"):
        parse_memory(amount)


@pytest.mark.parametrize("document", ["[]", "{", '{"dwi": 1}'])
def test_not_filters(document):
    with pytest.raises(ValueError, match=r".+"):
        read_filters(document)


# What cannot be run


@pytest.fixture
def config(tmp_path):
    (tmp_path / "raw").mkdir()
    return Config(tmp_path / "raw", tmp_path / "out", tmp_path / "work", scale=(2.0, 2.0, 2.0), nprocs=4, memory_gb=8.0)


def test_good_configurations_pass(config):
    check(config)
    check(replace(config, output_dir=config.bids_dir / "derivatives" / "bids_sr"))
    check(replace(config, scale=None, reports_only=True))
    check(replace(config, scale=(1.0, 1.0, 4.0)))


@pytest.mark.parametrize(
    ("paths", "error"),
    [
        ({"output_dir": "raw"}, OutputIsInputError),
        ({"output_dir": "link"}, OutputIsInputError),
        ({"output_dir": "raw/out"}, OutputInsideInputError),
        ({"output_dir": "."}, InputInsideOutputError),
        ({"work_dir": "raw"}, WorkInsideInputError),
        ({"work_dir": "raw/work"}, WorkInsideInputError),
        ({"work_dir": "out"}, ConfigurationError),
        ({"work_dir": "."}, ConfigurationError),
        ({"bids_dir": "nowhere"}, MissingPathError),
        ({"bids_dir": "file"}, ConfigurationError),
        ({"output_dir": "file/out"}, NotWritableError),
    ],
)
def test_folders_that_cannot_be_used(config, tmp_path, paths, error):
    (tmp_path / "link").symlink_to(config.bids_dir)
    (tmp_path / "file").touch()
    with pytest.raises(error):
        check(replace(config, **{name: tmp_path / path for name, path in paths.items()}))


def test_derivatives_must_exist(config, tmp_path):
    with pytest.raises(MissingPathError, match="--derivatives prior"):
        check(replace(config, derivatives={"prior": tmp_path / "nowhere"}))


@pytest.mark.parametrize(
    ("paths", "error"),
    [
        ({"output_dir": "prior"}, OutputIsInputError),
        ({"output_dir": "link"}, OutputIsInputError),
        ({"output_dir": "prior/sub-01"}, OutputInsideInputError),
        ({"output_dir": "raw/derivatives"}, InputInsideOutputError),
        ({"work_dir": "prior"}, WorkInsideInputError),
        ({"work_dir": "prior/sub-01/work"}, WorkInsideInputError),
        ({"output_dir": "prior/derivatives/bids_sr"}, None),
        ({"work_dir": "raw/derivatives/work"}, WorkInsideInputError),
    ],
)
@pytest.mark.parametrize("levels", [("participant",), ("participant", "group")])
@pytest.mark.parametrize("dry_run", [False, True])
def test_derivatives_that_are_read_are_not_written_to(config, tmp_path, paths, error, levels, dry_run):
    prior = tmp_path / "raw" / "derivatives" / "prior"
    prior.mkdir(parents=True)
    for name in ("prior", "link"):
        (tmp_path / name).symlink_to(prior)
    config = replace(config, derivatives={"fmriprep": prior}, analysis_levels=levels, dry_run=dry_run)
    changed = replace(config, **{name: tmp_path / path for name, path in paths.items()})
    if error is None:
        check(changed)
        return
    with pytest.raises(error):
        check(changed)


FMRIPREP = {"Name": "fMRIPrep", "Version": "23.0.0"}
OURS = {"Name": "bids_sr", "Version": "0.0.1"}


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"DatasetType": "derivative", "GeneratedBy": [FMRIPREP]}, "the results of fMRIPrep. Name a folder of its own"),
        ({"GeneratedBy": [FMRIPREP, {"Name": "Manual"}]}, "the results of fMRIPrep, Manual"),
        ({"PipelineDescription": FMRIPREP}, "the results of fMRIPrep"),
        ({"DatasetType": "raw", "GeneratedBy": [OURS]}, "a dataset that bids_sr did not make"),
        ({"Name": "Scans", "BIDSVersion": "1.10.0"}, "a dataset that bids_sr did not make"),
        ({"DatasetType": "derivative", "GeneratedBy": [{}, None]}, "a dataset that bids_sr did not make"),
        ([], "a dataset that bids_sr did not make"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"dry_run": True}, {"analysis_levels": ("group",)}, {"reports_only": True}])
def test_results_of_other_programs_are_not_written_over(config, description, words, options):
    config.output_dir.mkdir()
    (config.output_dir / "dataset_description.json").write_text(json.dumps(description))
    with pytest.raises(ForeignOutputError, match=words):
        check(replace(config, **options))


@pytest.mark.parametrize("generators", [[OURS], [OURS, FMRIPREP]])
def test_results_of_ours_are_taken_up_again(config, generators):
    config.output_dir.mkdir()
    file = config.output_dir / "dataset_description.json"
    file.write_text(json.dumps({"DatasetType": "derivative", "GeneratedBy": generators}))
    check(config)


def test_a_description_of_results_that_cannot_be_read_is_one_line(config):
    config.output_dir.mkdir()
    file = config.output_dir / "dataset_description.json"
    for spoil in (lambda: file.write_text("{"), lambda: file.write_bytes(b"\xff\xfe{"), lambda: file.unlink()):
        spoil()
        if not file.exists():
            file.symlink_to("annex-object-that-was-dropped")
        with pytest.raises(ConfigurationError, match=r"OUTPUT_DIR: [^\n]* cannot be read [^\n]*$"):
            check(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": None}, "--scale"),
        ({"output_resolution": (1.0, 1.0, 1.0)}, "excludes"),
        ({"scale": (0.99, 2.0, 2.0)}, "--scale"),
        ({"scale": (2.0, 2.0, 4.01)}, "--scale"),
        ({"scale": (float("nan"), 2.0, 2.0)}, "--scale"),
        ({"scale": None, "output_resolution": (1.0, 0.0, 1.0)}, "larger than zero"),
        ({"scale": None, "output_resolution": (1.0, float("inf"), 1.0)}, "larger than zero"),
        ({"device": "gpu"}, "--device"),
        ({"device": "cuda:x"}, "--device"),
        ({"b0_threshold": -1.0}, "--b0-threshold"),
        ({"b0_threshold": float("nan")}, "--b0-threshold"),
        ({"nprocs": 0}, "--nprocs"),
        ({"omp_nthreads": 5}, "--omp-nthreads"),
        ({"memory_gb": 0.0}, "--mem"),
        ({"random_seed": -1}, "--random-seed"),
        ({"analysis_levels": ("subject",)}, "participant and group"),
        ({"analysis_levels": ()}, "none"),
        ({"analysis_levels": ("group",), "dry_run": True}, "--dry-run: it goes with participant"),
        ({"analysis_levels": ("group",), "boilerplate_only": True}, "--boilerplate-only: it goes with participant"),
    ],
)
def test_values_that_cannot_be_used(config, options, message):
    with pytest.raises(InputError, match=message):
        check(replace(config, **options))
