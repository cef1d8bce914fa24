"""The command line of `bids-sr-demo`: write a made dataset with known truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bids_sr import __version__
from bids_sr.errors import BidsSrError
from bids_sr.resources import lend_home


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `bids-sr-demo`."""
    parser = argparse.ArgumentParser(
        prog="bids-sr-demo",
        description="Write a BIDS dataset of one made head: T1w, noisy diffusion series with large voxels, and under "
        "derivatives/truth what a perfect super-resolution would give.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make; it must be new or empty")
    parser.add_argument(
        "--small", action="store_true", help="a head of ellipsoids on 24 x 28 x 22 voxels, in seconds, for tests"
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="same number, same bytes (default: 0)")
    parser.add_argument(
        "--snr", type=_snr, default=25.0, metavar="X", help="signal of white matter in b0 over noise (default: 25)"
    )
    parser.add_argument("--version", action="version", version=f"bids_sr {__version__}")
    return parser


def _seed(text: str) -> int:
    """A whole number that is not negative."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _snr(text: str) -> float:
    """A positive, finite number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bids-sr-demo` and return its exit code: 0 done, 2 bad arguments or place, 130 interrupted."""
    options = build_parser().parse_args(argv)
    lend_home()
    # Imported late: DIPY and SciPy take a second that --help need not wait for.
    from bids_sr.demo.dataset import make_dataset

    try:
        make_dataset(options.out, small=options.small, seed=options.seed, snr=options.snr)
    except BidsSrError as error:
        print(f"bids-sr-demo: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"bids-sr-demo: {options.out} cannot be written: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"Made {options.out}; its truth is in {options.out / 'derivatives' / 'truth'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
