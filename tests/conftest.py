"""Settings that all tests share."""

import os

# Before torch or numpy are imported: two OpenMP programs on one processor slow each other tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")
