"""What every test may count on: where the data lie, quiet figures, the same examples each time."""

import os
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"

if DATA.is_dir():
    os.environ.setdefault("SYNTHMED_DATA", str(DATA))
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tables: threads cost more than they bring

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
