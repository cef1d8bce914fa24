"""A pybids database that is kept in a folder for several runs: made once, and there whole or not at all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bids_sr.bids.locks import locked

#: The name that pybids gives the file of a database.
FILE = "layout_index.sqlite"
_UNFINISHED = ".unfinished-"

logger = logging.getLogger(__name__)


def make_once(folder: Path, make: Callable[[Path], object]) -> None:
    """Make the database of a folder unless it is there; where another run makes it, wait for that.

    pybids takes any file of that name for a whole database, and writes an empty one before it reads the dataset.

    Parameters
    ----------
    folder : Path
        Made if needed; may hold other files.
    make : function
        Makes `FILE` in the folder that it is given, and closes it.
    """
    if (folder / FILE).is_file():
        return
    busy = partial(logger.info, "Another run indexes the dataset into %s; waiting for it.", folder)
    with locked(folder / ".lock", busy) as keeps_out:
        if (folder / FILE).is_file():
            return
        for left in folder.glob(f"{_UNFINISHED}*") if keeps_out else ():
            shutil.rmtree(left, ignore_errors=True)
        with TemporaryDirectory(prefix=_UNFINISHED, dir=folder) as unfinished:
            make(Path(unfinished))
            (Path(unfinished) / FILE).replace(folder / FILE)
