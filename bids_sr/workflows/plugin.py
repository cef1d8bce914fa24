"""How nipype is made to run a graph: in this process, in worker processes, or as the user's plugin file says."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from traceback import format_exception
from typing import Any

import yaml
from nipype.pipeline import plugins
from nipype.pipeline.engine import Node
from nipype.pipeline.plugins.linear import LinearPlugin
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer, run_node

from bids_sr.config import Config
from bids_sr.errors import PluginFileError, WorkerKilledError
from bids_sr.interfaces.failure import INTERRUPT_EXIT_CODE, Failure
from bids_sr.workflows.slurm import WaitingSLURMGraphPlugin

StatusCallback = Callable[[Node, str], None]
SECONDS_TO_END = 5.0


class GuardedMultiProcPlugin(MultiProcPlugin):
    """nipype's MultiProc, which survives the death of a worker and leaves none behind.

    In nipype's own, a worker that the kernel kills leaves its node pending for ever, and the run hangs. Here the nodes
    that were running fail, and the others go on in new workers. Workers are spawned, because neither PyTorch nor CUDA
    survive a fork.
    """

    pool: ProcessPoolExecutor

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown(wait=False)
        self.pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        """Make workers, which are started when the first node is submitted."""
        return ProcessPoolExecutor(
            max_workers=self.processors,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start_worker,
            initargs=(self._cwd,),
        )

    def _submit_job(self, node: Node, updatehash: bool = False) -> int:
        """Hand a node to a worker; nipype asks for it under this name."""
        self._taskid += 1
        try:
            future = self.pool.submit(run_node, node, updatehash, self._taskid)
        except BrokenProcessPool:
            self.pool = self._new_pool()
            future = self.pool.submit(run_node, node, updatehash, self._taskid)
        self._task_obj[self._taskid] = future
        future.add_done_callback(partial(self._keep_result, self._taskid, node))
        return int(self._taskid)

    def _keep_result(self, task: int, node: Node, future: Future[dict[str, Any]]) -> None:
        """Store what a worker returned, or the failure of a worker that returned nothing."""
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._taskresult[task] = future.result()
            return
        if isinstance(error, BrokenProcessPool):
            error = WorkerKilledError()
            leave_failure(node, error)
        self._taskresult[task] = {"result": None, "traceback": format_exception(error), "taskid": task}

    def terminate(self) -> None:
        """End all workers, whatever they are doing."""
        workers = list((self.pool._processes or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(SECONDS_TO_END)
            if worker.is_alive():
                worker.kill()
                worker.join()


def leave_failure(node: Node, error: BaseException) -> None:
    """Write the failure of a node that could not do so itself into its folder."""
    folder = Path(node.output_dir())
    folder.mkdir(parents=True, exist_ok=True)
    Failure.of(error).write(folder)


def start_worker(folder: str) -> None:
    """Prepare a worker process: the parent alone handles interrupts, and no worker outlives it."""
    process_initializer(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent to end, in any way, and end this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(INTERRUPT_EXIT_CODE)


def make_plugin(config: Config, callback: StatusCallback, *, uses_gpu: bool) -> Any:
    """The nipype plugin of a run.

    Parameters
    ----------
    config : Config
    callback : function
        Called with a node and ``start``, ``end`` or ``exception``.
    uses_gpu : bool
        Whether a stage runs on a GPU; it then gets one slot, so that such stages run one after the other.

    Raises
    ------
    PluginFileError
        If the plugin file names a plugin that cannot be used.
    """
    arguments: dict[str, Any] = {
        "n_procs": config.nprocs,
        "memory_gb": config.memory_gb,
        "n_gpu_procs": int(uses_gpu),
        # A stage that is larger than the memory given runs alone instead of ending the run.
        "raise_insufficient": False,
        "status_callback": callback,
    }
    if config.plugin_file is not None:
        return _plugin_from_file(config.plugin_file, arguments)
    if config.nprocs == 1:
        return LinearPlugin(plugin_args=arguments)
    return GuardedMultiProcPlugin(plugin_args=arguments)


def _plugin_from_file(file: Path, defaults: dict[str, Any]) -> Any:
    """The plugin that a YAML file describes; its arguments go before the defaults."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    name = content["plugin"]
    arguments = defaults | (content.get("plugin_args") or {})
    if name == "SLURMGraph":
        return WaitingSLURMGraphPlugin(arguments, file)
    if name.endswith("Graph"):
        reason = f"{name} returns before its jobs are done, so the results could not be collected. Use {name[:-5]}."
        raise PluginFileError(path=file, reason=reason)
    if name == "MultiProc":
        return GuardedMultiProcPlugin(plugin_args=arguments)
    plugin = getattr(plugins, f"{name}Plugin", None)
    if plugin is None:
        raise PluginFileError(path=file, reason=f"nipype has no plugin {name}.")
    return plugin(plugin_args=arguments)
