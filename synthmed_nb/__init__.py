"""Synthetic patient tables from a diffusion model, with the evidence of what they are worth."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "Canaries",
    "Schema",
    "Synthesizer",
    "audit",
    "audit_the_auditor",
    "calibrate",
    "datasets",
    "evaluate",
    "report",
    "shift_dates",
]

if TYPE_CHECKING:  # for editors; at run time each name is loaded when it is first used
    from . import datasets
    from .auditing import audit
    from .calibration import calibrate
    from .canaries import Canaries
    from .controls import audit_the_auditor
    from .evaluation import evaluate
    from .reports import report
    from .schema import Schema
    from .shifts import shift_dates
    from .synthesizer import Synthesizer

_HOME = {
    "Canaries": "canaries",
    "Schema": "schema",
    "Synthesizer": "synthesizer",
    "audit": "auditing",
    "audit_the_auditor": "controls",
    "calibrate": "calibration",
    "evaluate": "evaluation",
    "report": "reports",
    "shift_dates": "shifts",
}


def __getattr__(name: str):
    """Load a public name on first use, so that `synthmed --help` need not load torch."""
    if name == "datasets":
        return import_module(f"{__name__}.datasets")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
