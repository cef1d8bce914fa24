"""Run the app as ``python -m bids_sr``."""

import sys

from bids_sr.cli.app import console

if __name__ == "__main__":
    sys.exit(console())
