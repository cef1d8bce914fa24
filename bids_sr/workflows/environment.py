"""An environment in which nothing is written outside the output and work folders, fetched or reported to anyone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bids_sr.config import Config
from bids_sr.resources import has_home

if TYPE_CHECKING:
    from nipype.pipeline.engine import Workflow

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
LEVELS = ("CRITICAL", "WARNING", "INFO")


def work_folder(config: Config) -> Path:
    """Everything of ours in the work folder, which may hold other programs' files."""
    return config.work_dir / "bids_sr"


def cache_folder(config: Config) -> Path:
    """Where libraries keep what they would put into the home folder."""
    return work_folder(config) / "cache"


@contextmanager
def isolated_environment(config: Config) -> Iterator[None]:
    """Set the variables that libraries read when they are imported, here and in workers; put them back after."""
    # Parallel jobs may share a work folder, so each run has its own settings.
    settings = work_folder(config) / f"settings_{config.run_id}"
    for folder in (cache_folder(config), settings):
        folder.mkdir(parents=True, exist_ok=True)
    (settings / "nipype.cfg").write_text(nipype_settings(config), encoding="utf-8")
    before = dict(os.environ)
    os.environ.update(variables(config, settings))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(settings, ignore_errors=True)
        with suppress(OSError):
            work_folder(config).rmdir()


def variables(config: Config, settings: Path) -> dict[str, str]:
    """Environment variables of a run."""
    threads = str(max(1, min(config.omp_nthreads, config.nprocs)))
    folders = ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TORCH_HOME", "DIPY_HOME")
    return {
        **dict.fromkeys(folders, str(cache_folder(config))),
        "NIPYPE_CONFIG_DIR": str(settings),
        **dict.fromkeys(THREAD_VARIABLES, threads),
        "NIPYPE_NO_ET": "1",
        "NO_ET": "1",
        "MPLBACKEND": "Agg",
        # nipype's SLURM plugin reads it, and containers leave it out.
        "LOGNAME": os.environ.get("LOGNAME", "bids_sr"),
        **_home(config),
    }


def _home(config: Config) -> dict[str, str]:
    """A home folder of the run for users who have none."""
    return {} if has_home() else {"HOME": str(cache_folder(config))}


def nipype_settings(config: Config) -> str:
    """Settings file of nipype; worker processes and cluster jobs read it when they start."""
    level = LEVELS[min(config.verbosity, 2)]
    return "\n".join(
        [
            "[logging]",
            *(f"{name}_level = {level}" for name in ("workflow", "utils", "interface")),
            "log_to_file = false",
            f"log_directory = {_escaped(config.output_dir / 'logs')}",
            "[execution]",
            *(f"{name} = {value}" for name, value in execution_settings(config).items()),
            "[monitoring]",
            f"enabled = {str(config.resource_monitor).lower()}",
            "",
        ]
    )


def execution_settings(config: Config) -> dict[str, str]:
    """How nipype runs a graph, as its settings hold it; its nodes know the crash folder from `name_crash_folder`."""
    return {
        "crashdump_dir": _escaped(crash_folder(config)),
        "crashfile_format": "txt",
        "stop_on_first_crash": str(config.stop_on_first_crash).lower(),
        "create_report": "false",
        "check_version": "false",
        "poll_sleep_duration": "0.2",
        # Outputs of one node are inputs of several; nipype must not tidy any of them away.
        "remove_unnecessary_outputs": "false",
        "hash_method": "timestamp",
    }


def _escaped(path: Path) -> str:
    """A path as settings hold it, where ``%`` begins the name of another setting."""
    return str(path).replace("%", "%%")


def name_crash_folder(workflow: Workflow, config: Config) -> None:
    """Tell the nodes of a graph where crash files go: nipype takes what its settings hold, escapes and all.

    Not with a plugin file: scripts of cluster jobs put what the nodes know back into settings.
    """
    if config.plugin_file is None:
        workflow.config["execution"]["crashdump_dir"] = str(crash_folder(config))


def crash_folder(config: Config) -> Path:
    """Where crash files of this run go."""
    return config.output_dir / "logs" / config.run_id
