"""The log of a run: a file with everything in it, and one line per stage for who is watching."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from nipype import logging as nipype_logging
from nipype.pipeline.engine import Node

from bids_sr.config import Config

logger = logging.getLogger("bids_sr")
#: Goes to the file only: how long each stage took, and tracebacks, which the terminal shows with -v.
file_logger = logging.getLogger("bids_sr_file")

STAGES = {
    "gradients": "checking the gradients",
    "unpack": "unpacking the series",
    "b0": "averaging the b0 volumes",
    "preprocess.mask": "finding the brain",
    "register": "registering the T1w image",
    "restore": "restoring the series",
    "cubic": "interpolating the series for comparison",
    "fit_acquired": "fitting the tensor as acquired",
    "fit_sr": "fitting the tensor of the restored series",
    "fit_cubic": "fitting the tensor of the interpolated series",
    "compare": "comparing the tensors",
    "compare_truth": "comparing with the truth",
    "self_check": "trying the model on the scan itself",
    "ablate": "restoring a part of the series without the T1w image",
    "uncertainty": "carrying the uncertainty to FA and MD",
    "guard": "comparing the restored series with the acquired one",
    "save_sr": "saving the restored series",
    "figures": "drawing the figures",
}


class LogFile(logging.FileHandler):
    """A log file without which a run goes on, where the disk is full for example."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Say so once; logging's own way is a traceback for every line."""
        if not self.failed:
            self.failed = True
            print(f"The log cannot be written any more: {sys.exc_info()[1]}", file=sys.stderr)

    def close(self) -> None:
        """Close the file, whether or not what is left can be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_file(config: Config) -> Iterator[Path]:
    """Write the run's options and its log into the output's log folder."""
    folder = config.output_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{config.run_id}.toml").write_text(config.to_toml(), encoding="utf-8")
    file = folder / f"{config.run_id}.log"
    handler = LogFile(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    nipype_logger = logging.getLogger("nipype")
    nipype_handlers = list(nipype_logger.handlers)
    nipype_logger.handlers = [handler]
    # The terminal gets our own lines only; nipype's, with its tracebacks, come with -v.
    nipype_logger.propagate = config.verbosity > 0
    file_logger.propagate = False
    # What the terminal is told of (-q) does not change what the file holds.
    file_logger.setLevel(logging.INFO)
    for one in (logger, file_logger):
        one.addHandler(handler)
    for one in nipype_logging.loggers.values():
        one.setLevel(logging.DEBUG if config.verbosity > 1 else logging.INFO)
    try:
        yield file
    finally:
        nipype_logger.handlers = nipype_handlers
        nipype_logger.propagate = True
        for one in (logger, file_logger):
            one.removeHandler(handler)
        handler.close()


class StageMonitor:
    """What nipype tells of its nodes: shown as it happens, durations noted in the log, failures kept.

    Parameters
    ----------
    labels : mapping
        Name of the series for people, by the name of its graph.
    check_signals : function
        Raises where the run was asked to stop, which nipype would take for a failed node, and go on.
    """

    def __init__(self, labels: Mapping[str, str], check_signals: Callable[[], None]) -> None:
        self.labels = labels
        self.check_signals = check_signals
        self.failed: list[Node] = []
        self._began: dict[str, float] = {}

    def __call__(self, node: Node, status: str) -> None:
        """Take note of a node that starts, ends or fails; nipype calls this."""
        name = f"{node._hierarchy}.{node.name}"
        if status == "start":
            self._began[name] = time.monotonic()
            self._tell(node, name)
        elif status == "end" and name in self._began:
            took = time.monotonic() - self._began.pop(name)
            stage = name.split(".", 2)[-1]
            file_logger.info("%s: %s took %.1f s", self.labels[series_of(node)], stage, took)
        elif status == "exception":
            self.failed.append(node)
        self.check_signals()

    def _tell(self, node: Node, name: str) -> None:
        """Show a stage that starts."""
        text = next((text for stage, text in STAGES.items() if name.endswith(f".{stage}")), None)
        if text is not None:
            logger.info("%s: %s", self.labels[series_of(node)], text)


def series_of(node: Node) -> str:
    """Name of the series' graph that a node belongs to."""
    return str(node._hierarchy.split(".")[1])
