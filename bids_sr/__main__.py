"""Run the app as ``python -m bids_sr``."""

import sys

from bids_sr.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
