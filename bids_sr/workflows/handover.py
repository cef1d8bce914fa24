"""Hands what is finished over to other programs, where that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bids_sr.bids.handover import LAYOUT, hand_over, handover_folder, write_handover_files
from bids_sr.config import Config
from bids_sr.records import is_finished, read_record
from bids_sr.workflows.plan import SeriesPlan

if TYPE_CHECKING:
    from bids_sr.models.registry import ModelCard

logger = logging.getLogger("bids_sr")


def hand_over_finished(config: Config, card: ModelCard, plans: Iterable[SeriesPlan]) -> int:
    """Put every series that is finished, in this run or before, into the layout that is asked for.

    It comes after the run rather than in its graph: what was finished long ago is handed over in seconds.

    Returns
    -------
    int
        0, or 1 where files could not be written.
    """
    if config.output_layout != LAYOUT:
        return 0
    code = 0
    for plan in plans:
        if not is_finished(read_record(plan.record_file), plan.fingerprint, config.output_dir):
            continue
        try:
            hand_over(plan.series, config, plan.resolution)
            write_handover_files(config, card)
        except OSError as error:
            code = 1
            logger.error("%s: not handed over to QSIRecon: %s", plan.series.label, error)
    folder = handover_folder(config)
    if folder.is_dir():
        logger.info("For QSIRecon: %s", folder)
    return code
