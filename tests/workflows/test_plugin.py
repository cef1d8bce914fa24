"""A worker that dies fails its node and no other; nothing of a run outlives it."""

import os
import time

import pytest
from nipype import Function, Node, Workflow
from nipype.pipeline.plugins.linear import LinearPlugin

from bids_sr.errors import PluginFileError
from bids_sr.interfaces.failure import MEMORY_EXIT_CODE, Failure
from bids_sr.workflows.plugin import GuardedMultiProcPlugin, make_plugin


def die():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def wait(seconds):
    import os
    import time

    time.sleep(seconds)
    return os.getpid()


def silent(node, status):
    """A callback that takes no note."""


@pytest.fixture
def workflow(tmp_path):
    workflow = Workflow("test", base_dir=str(tmp_path))
    workflow.config["execution"] = {
        "crashdump_dir": str(tmp_path),
        "crashfile_format": "txt",
        "create_report": "false",
        "poll_sleep_duration": "0.1",
    }
    return workflow


def test_a_killed_worker_fails_its_node_as_out_of_memory_and_the_rest_goes_on(workflow, tmp_path):
    failed = []
    die_node = Node(Function(function=die, output_names=[]), name="die")
    wait_node = Node(Function(function=wait, input_names=["seconds"], output_names=["pid"]), name="late")
    wait_node.inputs.seconds = 0
    workflow.add_nodes([die_node, wait_node])
    arguments = {
        "n_procs": 1,
        "memory_gb": 2,
        "n_gpu_procs": 0,
        "status_callback": lambda node, status: failed.append(node) if status == "exception" else None,
    }
    plugin = GuardedMultiProcPlugin(arguments)
    with pytest.raises(Exception, match="killed"):
        workflow.run(plugin=plugin)
    plugin.terminate()
    assert [node.name for node in failed] == ["die"]
    failure = Failure.read(tmp_path / "test" / "die")
    assert failure is not None
    assert failure.exit_code == MEMORY_EXIT_CODE
    assert "memory" in failure.message
    assert list((tmp_path / "test" / "late").glob("result_late.pklz"))


def test_terminated_workers_are_gone(tmp_path):
    plugin = GuardedMultiProcPlugin({"n_procs": 1, "memory_gb": 1, "n_gpu_procs": 0})
    started = tmp_path / "started"
    plugin.pool.submit(os.system, f"touch {started}").result(60)
    plugin.pool.submit(time.sleep, 600)
    workers = list(plugin.pool._processes.values())
    plugin.terminate()
    assert started.exists()
    assert workers
    # The pool's own thread may be the one that reaps a worker; for a moment its process object then still says alive.
    until = time.monotonic() + 10
    while any(worker.is_alive() for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(worker.is_alive() for worker in workers)


def test_one_processor_needs_no_workers(config):
    assert isinstance(make_plugin(config, silent, uses_gpu=False), LinearPlugin)


@pytest.mark.parametrize("uses_gpu", [True, False])
def test_a_gpu_is_one_slot(config, uses_gpu):
    import dataclasses

    plugin = make_plugin(dataclasses.replace(config, nprocs=3), silent, uses_gpu=uses_gpu)
    assert plugin.processors == 3
    assert plugin.n_gpu_procs == int(uses_gpu)


def with_plugin_file(config, tmp_path, text):
    import dataclasses

    file = tmp_path / "plugin.yml"
    file.write_text(text)
    return dataclasses.replace(config, plugin_file=file)


def test_the_plugin_file_goes_before_the_options(config, tmp_path):
    changed = with_plugin_file(config, tmp_path, "plugin: MultiProc\nplugin_args: {n_procs: 5}")
    plugin = make_plugin(changed, silent, uses_gpu=False)
    assert isinstance(plugin, GuardedMultiProcPlugin)
    assert plugin.processors == 5
    assert plugin.memory_gb == config.memory_gb


@pytest.mark.parametrize("name", ["SGEGraph", "Dask"])
def test_plugins_that_cannot_work_are_refused(config, tmp_path, name):
    with pytest.raises(PluginFileError, match=name):
        make_plugin(with_plugin_file(config, tmp_path, f"plugin: {name}"), silent, uses_gpu=False)
