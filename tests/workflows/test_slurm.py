"""SLURM's commands played by small scripts: jobs run as they are handed over, unless they are lost or refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from nipype import Function, Node, Workflow

from bids_sr.errors import PluginFileError
from bids_sr.interfaces.failure import MEMORY_EXIT_CODE, Failure
from bids_sr.workflows import slurm
from bids_sr.workflows.plugin import make_plugin
from bids_sr.workflows.slurm import WaitingSLURMGraphPlugin, job_script, queue_states

SBATCH = """\
echo "$@" >> "$SLURM_FAKE/sbatch"
n=$(wc -l < "$SLURM_FAKE/sbatch")
for word; do case "$word" in
    --dependency=afterok:*) for m in $(echo "${word#*afterok:}" | tr : ' '); do
        [ -e "$SLURM_FAKE/done$m" ] || { echo "$n;probe"; exit 0; }
    done ;;
esac; done
case "$*" in *--job-name=lost*) echo "$n;probe"; exit 0 ;; esac
for script; do :; done
bash "$script" > "$SLURM_FAKE/log$n" 2>&1 && touch "$SLURM_FAKE/done$n"
echo "$n;probe"
"""
SQUEUE = """\
echo x >> "$SLURM_FAKE/squeue"
[ "$(wc -l < "$SLURM_FAKE/squeue")" -gt 1 ] || { echo "slurm_load_jobs error: Socket timed out" >&2; exit 1; }
[ "$(wc -l < "$SLURM_FAKE/squeue")" -gt 2 ] || echo "1 RUNNING"
echo "77 PENDING"
"""


def double(number):
    return 2 * number


def end_with(status):
    import os

    os._exit(status)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder that notes what was asked of a made SLURM, whose commands come before any others."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    commands = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": 'echo "$@" >> "$SLURM_FAKE/scancel"\n'}
    for name, text in commands.items():
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("SLURM_FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setattr(slurm, "FILE_SYSTEM_SECONDS", 0)
    return folder


@pytest.fixture
def workflow(tmp_path):
    workflow = Workflow("test", base_dir=str(tmp_path))
    workflow.config["execution"] = {
        "crashdump_dir": str(tmp_path),
        "crashfile_format": "txt",
        "create_report": "false",
        "remove_unnecessary_outputs": "false",
    }
    return workflow


def node(name, function, **inputs):
    made = Node(Function(function=function, input_names=list(inputs), output_names=["out"]), name=name)
    for key, value in inputs.items():
        setattr(made.inputs, key, value)
    return made


def run(workflow, told):
    arguments = {
        "status_callback": lambda node, status: told.append((node.name, status)),
        "sbatch_args": "--mem=1G",
        "poll_seconds": 0.01,
    }
    workflow.run(plugin=WaitingSLURMGraphPlugin(arguments, Path("plugin.yml")))
    return told


def test_jobs_are_chained_and_waited_for(cluster, workflow, tmp_path):
    first, second = node("first", double, number=2), node("second", double, number=0)
    workflow.connect(first, "out", second, "number")
    assert run(workflow, []) == [("first", "start"), ("second", "start")]
    assert list((tmp_path / "test" / "second").glob("result_second.pklz"))
    lines = (cluster / "sbatch").read_text().splitlines()
    assert "--dependency" not in lines[0]
    assert "--dependency=afterok:1" in lines[1]
    assert "--kill-on-invalid-dep=yes" in lines[1]
    assert all("--mem=1G" in line for line in lines)
    # The queue did not answer, then had one of our jobs, then only another's.
    assert len((cluster / "squeue").read_text().split()) == 3


@pytest.mark.parametrize(("name", "exit_code"), [("killed", 137), ("lost", 1), ("broken", 1)])
def test_a_job_that_dies_fails_its_step_and_not_those_after_it(cluster, workflow, tmp_path, name, exit_code):
    first, second = (
        node(name, end_with, status=3 if name == "broken" else MEMORY_EXIT_CODE),
        node("second", double, number=0),
    )
    other = node("other", double, number=1)
    workflow.connect(first, "out", second, "number")
    workflow.add_nodes([other])
    told = run(workflow, [])
    assert [entry for entry in told if entry[1] == "exception"] == [(name, "exception")]
    assert ("second", "start") not in told
    assert list((tmp_path / "test" / "other").glob("result_other.pklz"))
    failure = Failure.read(tmp_path / "test" / name)
    assert failure is not None
    assert failure.exit_code == exit_code
    assert ("status 3" if name == "broken" else "memory") in failure.message


def test_what_slurm_refuses_is_said_in_one_line_and_what_was_queued_is_cancelled(cluster, workflow):
    refusing = 'case "$*" in *--job-name=second*) echo "sbatch: error: invalid account" >&2; exit 1 ;; esac\n'
    command = cluster / "bin" / "sbatch"
    command.write_text(command.read_text().replace("\n", f"\n{refusing}", 1))
    workflow.add_nodes([node("first", double, number=2)])
    workflow.connect(workflow.get_node("first"), "out", node("second", double, number=0), "number")
    with pytest.raises(PluginFileError, match=r"plugin\.yml: SLURM refused a job: .*invalid account"):
        run(workflow, [])
    assert (cluster / "scancel").read_text().split() == ["1"]


def test_without_slurm_it_says_where_to_start(cluster, workflow, monkeypatch):
    (cluster / "bin" / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(cluster / "bin"))
    workflow.add_nodes([node("first", double, number=2)])
    with pytest.raises(PluginFileError, match="sbatch is not there"):
        run(workflow, [])


def test_a_queue_that_does_not_answer_is_not_an_empty_queue(cluster):
    assert queue_states() is None
    assert queue_states() == {"1": "RUNNING", "77": "PENDING"}


def test_a_job_keeps_its_exit_status(tmp_path):
    program = tmp_path / "with space.py"
    program.write_text("raise SystemExit(3)")
    script = tmp_path / "job.sh"
    script.write_text(job_script("#!/bin/bash\n", program))
    assert subprocess.run(["bash", script], capture_output=True, check=False).returncode == 3
    assert (tmp_path / "with space.status").read_text() == "3\n"


def test_the_plugin_file_chooses_it(config, tmp_path):
    import dataclasses

    file = tmp_path / "plugin.yml"
    file.write_text("plugin: SLURMGraph\nplugin_args: {sbatch_args: --mem=2G}")
    plugin = make_plugin(dataclasses.replace(config, plugin_file=file), lambda *_: None, uses_gpu=False)
    assert isinstance(plugin, WaitingSLURMGraphPlugin)
    assert plugin._sbatch_args == "--mem=2G"
