"""Command lines that refuse in one line."""

import argparse
from typing import NoReturn

from bids_sr.errors import ConfigurationError


class OneLineParser(argparse.ArgumentParser):
    """Raises the package's own error instead of printing the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise ConfigurationError(option="command line", reason=f"{message}. See {self.prog} --help.")
