"""Whatever text, header or command line comes in: it is understood and comes out the same, or it is refused."""

import contextlib
import dataclasses
import json
import re
import string
import tempfile
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bids_sr.bids.inputs import ENTITY_ORDER, _read_sidecar, join_entities, parse_entities, sort_entities
from bids_sr.cli.app import parse_args
from bids_sr.config import Config, options_from_toml, parse_memory, read_filters
from bids_sr.dwi.gradients import Gradients, check_gradients, read_bvals, read_gradients, shells
from bids_sr.dwi.tensor import world_rotation
from bids_sr.errors import BidsSrError, InputError
from bids_sr.geometry import Grid, points_in, same_grid, target_grid
from bids_sr.headers import open_series, place_notes

FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)
words = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that the examples of a property share."""
    return tmp_path_factory.mktemp("properties")


def refused_or(result_type, function, *arguments):
    """The result, or None where the user is told in one line what is wrong."""
    try:
        result = function(*arguments)
    except BidsSrError as error:
        assert isinstance(error, InputError)
        assert "\n" not in str(error).rstrip()
        return None
    assert isinstance(result, result_type)
    return result


# Gradient files


@FAST
@given(st.binary(max_size=200) | words.map(str.encode))
@example(b"1e999 0\n0 1")
@example("０ １０００".encode())
def test_any_bytes_are_a_table_or_refused(folder, content):
    file = folder / "any.bval"
    file.write_bytes(content)
    refused_or(np.ndarray, read_bvals, file)
    refused_or(Gradients, read_gradients, file, file)


@FAST
@given(st.lists(numbers, min_size=1, max_size=12), st.sampled_from([" ", "\t", ",", ", ", "   "]), st.booleans(),
       st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())  # fmt: skip
def test_b_values_are_read_as_they_were_written(folder, values, between, in_a_column, line_end, marked):
    file = folder / "written.bval"
    text = (line_end if in_a_column else between).join(repr(float(value)) for value in values) + line_end
    file.write_bytes(("\ufeff" * marked + text).encode())
    np.testing.assert_array_equal(read_bvals(file), np.array(values, dtype=np.float64))


@FAST
@given(st.lists(st.tuples(*[numbers] * 4), min_size=1, max_size=12), st.floats(0, 1e4))
def test_any_gradients_pass_or_are_refused(rows, threshold):
    table = np.array(rows, dtype=np.float64)
    gradients = Gradients(table[:, 0], table[:, 1:])
    try:
        check_gradients(gradients, len(rows), threshold, "scan")
    except InputError:
        return
    labels = shells(gradients.bvals, threshold)
    assert (labels == 0).any()
    assert (labels > 0).sum() >= 6
    assert np.isfinite(gradients.bvecs[labels > 0]).all()


# Affines and headers

sizes = st.tuples(*[st.floats(0.3, 8)] * 3)
angles = st.tuples(*[st.floats(-180, 180)] * 3)
shapes = st.tuples(*[st.integers(1, 30)] * 3)
origins = st.tuples(*[st.floats(-300, 300)] * 3)
flips = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)
orders = st.permutations(range(3))


def affine_of(size, degrees, origin, flip=(1.0, 1.0, 1.0), order=(0, 1, 2)):
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(flip)[:, list(order)] * size
    affine[:3, 3] = origin
    return affine


affines = st.builds(affine_of, sizes, angles, origins, flips, orders)


@FAST
@given(shapes, affines, st.floats(1, 4))
def test_there_and_back_through_the_target_grid(shape, affine, scale):
    source = Grid(shape, affine)
    target = target_grid(source, None, (scale, scale, scale), "scan")
    voxels = np.array([[0, 0, 0], np.subtract(target.shape, 1)])
    there = points_in(source, target, voxels)
    back = points_in(target, Grid((1, 1, 1), source.affine), np.zeros((1, 3), int))
    np.testing.assert_allclose(points_in(target, source, np.zeros((1, 3), int)), back, atol=1e-9)
    to_target = np.linalg.inv(target.affine) @ source.affine
    np.testing.assert_allclose(there @ to_target[:3, :3].T + to_target[:3, 3], voxels, atol=1e-6)
    assert same_grid(source, source.resized(shape))


@FAST
@given(affines)
def test_b_vectors_go_to_the_world_and_back(affine):
    rotation = world_rotation(affine)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    # The frame of b-vectors is left-handed, whatever the storage.
    assert np.linalg.det(rotation) == pytest.approx(-1)


@FAST
@example((1, 12, 1), affine_of((1.0, 8.0, 1.0), (0.21875, -53.0, 0.0), (0.0, 0.0, 0.0), (-1.0,) * 3, (2, 1, 0)))
@given(shapes, affines)
def test_a_written_grid_is_read_back_without_a_note(folder, shape, affine):
    file = folder / "grid.nii"
    image = nib.Nifti1Image(np.zeros((*shape, 2), np.uint8), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.to_filename(file)
    read = open_series(file)
    assert same_grid(Grid.of(read), Grid(shape, affine))
    assert place_notes(read, "scan") == []


@FAST
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=12))
def test_any_damage_of_a_header_is_survived(folder, changes):
    content = bytearray(nib.Nifti1Image(np.ones((4, 4, 3, 2), np.int16), np.diag([2.0, 2, 2, 1])).to_bytes())
    for place, value in changes:
        content[place] = value
    file = folder / "damaged.nii"
    file.write_bytes(bytes(content))
    image = refused_or(nib.Nifti1Pair, open_series, file)
    if image is not None:
        assert np.isfinite(Grid.of(image).affine).all()
        assert all(isinstance(note, str) for note in place_notes(image, "scan"))


# Names

labels = st.text(string.ascii_letters + string.digits, min_size=1, max_size=6)


@FAST
@given(st.dictionaries(st.sampled_from(ENTITY_ORDER), labels, min_size=1, max_size=8), st.randoms())
def test_entities_come_back_in_order(entities, random):
    shuffled = list(entities.items())
    random.shuffle(shuffled)
    name = f"{join_entities(dict(shuffled))}_dwi.nii.gz"
    parsed = parse_entities(Path(name))
    assert parsed == entities
    assert list(parsed) == [key for key in ENTITY_ORDER if key in entities]
    assert parse_entities(Path(f"{join_entities(parsed)}_dwi.nii.gz")) == parsed


@FAST
@given(words)
def test_any_name_has_entities(name):
    entities = parse_entities(Path("/") / name.replace("/", "").replace("\0", ""))
    assert sort_entities(entities) == entities


# Documents

plain = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=True) | words
documents = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8
)


@FAST
@given(documents | st.binary(max_size=60))
def test_any_sidecar_is_read_or_refused(folder, content):
    file = folder / "any.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    read = refused_or(dict, _read_sidecar, file)
    if read is not None:
        json.dumps(read, allow_nan=False)
        assert None not in read.values()


@FAST
@given(documents)
def test_any_filter_is_read_or_refused(content):
    try:
        filters = read_filters(json.dumps(content))
    except ValueError:
        return
    assert all(isinstance(entities, dict) for entities in filters.values())


@FAST
@given(st.text(st.characters(codec="utf-8"), max_size=120))
@example("nprocs = 1e400")
@example("[filters]\ndwi = 3")
def test_any_configuration_is_read_or_refused(text):
    # What is no TOML is told by the command line.
    with contextlib.suppress(tomllib.TOMLDecodeError):
        refused_or(dict, options_from_toml, text)


# Every option, with values of its own kind and of others.
NAMES = [item.name for item in dataclasses.fields(Config)]
VALUES = st.sampled_from(
    ["1", "-1", "0.5", "nan", "inf", "1e400", "true", '"text"', '""', "[1, 2, 3]", '["a"]', "[]", "{}", '{a = "b"}',
     "{dwi = {run = 1}}", "1979-05-27", '[["a"]]', "9999999999999999999999", '"../.."', '"\\u0000"']
)  # fmt: skip


@settings(FAST, max_examples=150)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=3))
def test_any_value_of_any_option_is_read_or_refused(options):
    text = "\n".join(f"{name} = {value}" for name, value in options.items())
    refused_or(dict, options_from_toml, text)


@FAST
@given(st.text(string.digits + ".KMGTBib eE+-", max_size=12))
def test_memory_is_an_amount_or_refused(text):
    try:
        assert parse_memory(text) > 0
    except ValueError:
        return


# Command lines

OPTIONS = [
    "--participant-label", "--session-label", "--bids-filter-file", "--derivatives", "--skip-bids-validation",
    "--output-resolution", "--scale", "--model", "--b0-threshold", "--no-t1w", "--save-cubic", "--random-seed",
    "--device", "--nprocs", "--omp-nthreads", "--mem", "--use-plugin", "-w", "--config-file", "--dry-run", "-v",
    "--notrack", "--unknown", "participant", "group", "sub-01", "1.25", "nan", "-1", "2", "x=y", "../..", "\0", "é", "",
]  # fmt: skip


@settings(FAST, max_examples=200)
@given(st.lists(st.sampled_from(OPTIONS), max_size=8))
def test_any_command_line_is_a_run_or_refused(folder, words):
    (folder / "raw").mkdir(exist_ok=True)
    config = refused_or(Config, parse_args, [str(folder / "raw"), str(folder / "out"), *words])
    if config is not None:
        assert config.analysis_levels
        assert Config.from_toml(config.to_toml()) == config


@FAST
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "--scale": st.floats(1, 4).map(lambda value: [repr(value)]),
            "--participant-label": st.lists(labels, min_size=1, max_size=3),
            "--b0-threshold": st.floats(0, 1e4).map(lambda value: [repr(value)]),
            "--random-seed": st.integers(0, 2**31).map(lambda value: [str(value)]),
            "--mem": st.floats(0.1, 1000).map(lambda value: [f"{value:.3f}G"]),
            "--no-t1w": st.just([]),
            "--model": labels.map(lambda value: [value]),
        },
    )
)
def test_a_run_is_the_same_after_it_was_written_and_read(options):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = {"--scale": ["2"], **options}
        given_words = [word for option, values in options.items() for word in (option, *values)]
        first = parse_args([name, f"{name}/derivatives/out", "participant", "-w", f"{name}_work", *given_words])
        (folder / "run.toml").write_text(first.to_toml(), encoding="utf-8")
        again = parse_args([name, f"{name}/derivatives/out", "participant", "--config-file", f"{name}/run.toml"])
        ours = {"run_id": "", "command_line": ""}
        assert dataclasses.replace(again, **ours) == dataclasses.replace(first, **ours)
        assert re.fullmatch(r"[0-9]{8}-[0-9]{6}_[0-9a-f]{8}", again.run_id)
