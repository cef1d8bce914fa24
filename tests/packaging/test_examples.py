"""The examples for clusters parse, ask for options that exist, and the array script does what it says."""

import json
import os
import re
import shlex
import stat
import subprocess

import pytest
import yaml

import bids_sr
from bids_sr.cli.app import build_parser, parse_args
from bids_sr.config import Config
from bids_sr.workflows.plugin import make_plugin
from bids_sr.workflows.slurm import WaitingSLURMGraphPlugin
from tests.packaging.tools import ROOT, tool

EXAMPLES = ROOT / "examples"
ARRAY = EXAMPLES / "slurm_array.sh"
OPTIONS = {name for action in build_parser()._actions for name in action.option_strings}
#: Stands for bids_sr and prints what it was given, one word a line.
ECHO = '#!/usr/bin/env bash\nprintf \'%s\\n\' "$@"\nexit "${ECHO_STATUS:-0}"\n'


@pytest.fixture
def dataset(tmp_path):
    """Two subjects with sessions and one without; a T1w alone makes no task."""
    names = [
        "sub-01/ses-1/dwi/sub-01_ses-1_dir-AP_dwi.nii.gz",
        "sub-01/ses-1/dwi/sub-01_ses-1_dir-PA_dwi.nii.gz",
        "sub-01/ses-2/dwi/sub-01_ses-2_dwi.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
        "sub-03/dwi/sub-03_dwi.nii",
    ]
    for name in names:
        (tmp_path / "my data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my data" / name).touch()
    link = tmp_path / "my data/sub-04/dwi/sub-04_dwi.nii.gz"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../.git/annex/objects/not-fetched")
    return tmp_path / "my data"


@pytest.fixture
def program(tmp_path):
    """A program that prints its words."""
    file = tmp_path / "echo_words"
    file.write_text(ECHO)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def array(*words, **environment):
    variables = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(["bash", ARRAY, *words], env=variables, capture_output=True, text=True, check=False)


def task(tasks, number, program, *options, **environment):
    """A task of an array, in an environment such as SLURM makes."""
    given = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3"}
    return array(tasks, "in", "out", *options, BIDS_SR=str(program), TMPDIR="scratch", **(given | environment))


def test_subjects_and_sessions_with_a_series_are_listed(dataset):
    assert array("--list", dataset).stdout.splitlines() == ["01", "03", "04"]
    assert array("--list-sessions", f"{dataset}/").stdout.splitlines() == ["01 1", "01 2", "03", "04"]


def test_every_task_does_one_line_and_all_lines_are_done(dataset, program, tmp_path):
    tasks = tmp_path / "tasks.txt"
    tasks.write_text(array("--list-sessions", dataset).stdout)
    found = []
    for number in range(1, 5):
        words = task(tasks, number, program, "--scale", "2").stdout.splitlines()
        (tmp_path / "in").mkdir(exist_ok=True)
        config = parse_args([str(tmp_path / "in"), str(tmp_path / "out"), *words[2:]])
        found.append((*config.participants, *config.sessions))
        assert config.nprocs == 3
        assert config.scale == (2, 2, 2)
        assert config.clean_workdir
        assert config.work_dir.parts[-2:] == ("scratch", f"bids_sr_7_{number}")
    assert found == [("01", "1"), ("01", "2"), ("03",), ("04",)]


def test_memory_is_handed_on_where_slurm_grants_some_of_it(tmp_path, program):
    (tmp_path / "tasks.txt").write_text("01\n")
    words = task(tmp_path / "tasks.txt", 1, program, SLURM_MEM_PER_NODE="8192").stdout.split()
    assert words[words.index("--mem") + 1] == "8192M"
    # 0 is the whole node.
    assert "--mem" not in task(tmp_path / "tasks.txt", 1, program, SLURM_MEM_PER_NODE="0").stdout


def test_options_of_the_user_come_last_and_keep_their_words(tmp_path, program):
    (tmp_path / "tasks.txt").write_text("01\n")
    lines = task(tmp_path / "tasks.txt", 1, program, "--nprocs", "1", "--bids-filter-file", "a b.json").stdout
    assert lines.splitlines()[-4:] == ["--nprocs", "1", "--bids-filter-file", "a b.json"]


def test_the_program_may_be_several_words(tmp_path, program):
    (tmp_path / "tasks.txt").write_text("01\n")
    lines = task(tmp_path / "tasks.txt", 1, f"{program} run --cleanenv image.sif").stdout.splitlines()
    assert lines[:5] == ["run", "--cleanenv", "image.sif", "in", "out"]


def test_the_exit_status_is_that_of_the_program(tmp_path, program):
    (tmp_path / "tasks.txt").write_text("01\n")
    assert task(tmp_path / "tasks.txt", 1, program, ECHO_STATUS="137").returncode == 137


def test_a_task_beyond_the_list_and_words_too_few_are_refused(tmp_path, program):
    (tmp_path / "tasks.txt").write_text("01\n")
    assert task(tmp_path / "tasks.txt", 2, program).returncode == 2
    assert "has no line 2" in task(tmp_path / "tasks.txt", 2, program).stderr
    assert array("tasks.txt", "in").returncode == 2
    assert array(tmp_path / "tasks.txt", "in", "out").returncode != 0


@pytest.mark.parametrize("script", sorted([*EXAMPLES.rglob("*.sh"), ROOT / ".ci/run"]), ids=lambda file: file.name)
def test_shellcheck_finds_nothing(script):
    found = subprocess.run([tool("shellcheck"), "-x", str(script)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(("name", "plugin"), [("nipype_slurm.yml", "SLURMPlugin"), ("nipype_slurm_graph.yml", None)])
def test_the_plugin_files_are_taken_with_their_arguments(tmp_path, name, plugin):
    config = Config(tmp_path, tmp_path / "out", tmp_path / "scratch", nprocs=1, plugin_file=EXAMPLES / name)
    made = make_plugin(config, lambda *_: None, uses_gpu=False)
    assert type(made).__name__ == (plugin or WaitingSLURMGraphPlugin.__name__)
    arguments = yaml.safe_load((EXAMPLES / name).read_text())["plugin_args"]
    assert made._sbatch_args == arguments["sbatch_args"]
    assert made._template.startswith("#!")
    if plugin:
        assert made.max_jobs == arguments["max_jobs"]
    else:
        assert made._seconds == arguments["poll_seconds"]


def test_babs_hands_over_options_that_exist_and_values_that_are_text():
    content = yaml.safe_load((EXAMPLES / "babs.yaml").read_text())
    arguments = content["bids_app_args"]
    assert {name for name in arguments if not name.startswith("$")} <= OPTIONS
    assert set(arguments.values()) - {None} == {value for value in arguments.values() if isinstance(value, str)}
    assert arguments["$SUBJECT_SELECTION_FLAG"] in OPTIONS
    assert content["zip_foldernames"]["bids_sr"] == bids_sr.__version__.replace(".", "-")


def test_the_line_that_babs_makes_is_understood(tmp_path):
    arguments = yaml.safe_load((EXAMPLES / "babs.yaml").read_text())["bids_app_args"]
    flag = arguments.pop("$SUBJECT_SELECTION_FLAG")
    (tmp_path / "in").mkdir()
    filters = tmp_path / "filter.json"
    filters.write_text(json.dumps({"fmap": {"datatype": "fmap", "session": "1"}, "t1w": {"session": "1"}}))
    given = " ".join(f"{name} {value}" for name, value in arguments.items())
    line = f"{tmp_path}/in {tmp_path}/out participant --bids-filter-file {filters} {given} {flag} sub-01"
    config = parse_args(shlex.split(line.replace("$BABS_TMPDIR", f"{tmp_path}/.git/scratch")))
    assert config.participants == ("01",)
    assert config.output_resolution == (1.25, 1.25, 1.25)


def nextflow() -> str:
    return (EXAMPLES / "nextflow/main.nf").read_text()


def test_nextflow_asks_for_options_that_exist():
    script = nextflow().split('"""')[1]
    assert (
        set(re.findall(r"--[a-z][a-z0-9-]+", script + nextflow().split("params.options = ")[1].splitlines()[0]))
        <= OPTIONS
    )


def test_nextflow_writes_into_one_output_that_the_program_keeps_in_order():
    """Tasks that publish copies of their own folders replace each other's reports, and lose hidden files."""
    assert "publishDir" not in nextflow()
    script = nextflow().split('"""')[1].replace("\\$", "$").replace("\\\\\n", " ")
    words = shlex.split(re.sub(r"\$\{[^}]*\}", "1", script))
    assert words[:4] == ["bids_sr", "$(realpath bids)", "$(realpath results)", "participant"]
    assert set(re.findall(r"stageAs: '(\w+)'", nextflow())) == {"bids", "results"}


def test_nextflow_retries_what_more_memory_can_mend_and_nothing_else():
    text = (EXAMPLES / "nextflow/nextflow.config").read_text()
    codes = {int(code) for code in re.search(r"exitStatus in \[([\d, ]+)\]", text)[1].split(",")}
    assert 137 in codes
    assert not codes & {0, 1, 2}
    assert "task.attempt" in text


def test_nextflow_gives_its_gpu_label_a_card():
    config = (EXAMPLES / "nextflow/nextflow.config").read_text()
    (label,) = re.findall(r"^\s+label '(\w+)'", nextflow(), re.MULTILINE)
    assert re.search(rf"withLabel: {label} \{{\s+accelerator = 1", config)
    assert f"bids_sr:{bids_sr.__version__}" in config


@pytest.mark.parametrize("file", sorted((EXAMPLES / "nextflow").iterdir()), ids=lambda file: file.name)
def test_brackets_of_nextflow_files_are_closed(file):
    code = re.sub(r"//.*|'[^'\n]*'", "", file.read_text())
    for opening, closing in ("{}", "()", "[]"):
        assert code.count(opening) == code.count(closing)


def test_every_example_is_explained_where_clusters_are():
    page = (ROOT / "docs/hpc.md").read_text()
    names = {str(file.relative_to(ROOT)) for file in EXAMPLES.rglob("*") if file.is_file()}
    assert [name for name in names if name not in page] == []
