"""The environment variables that botwire reads: this table knows them all, and any other `BOTWIRE_…` is an error.

A misspelt variable that is silently ignored sends memories to the wrong place.
"""

from __future__ import annotations

import os
from typing import Final

from .errors import InvalidInput

VARIABLES: Final[dict[str, str]] = {
    "BOTWIRE_URL": "where memories are kept when no `url=` is given; without it, a file in the user's data directory",
}


def check_environment() -> None:
    """Raise `InvalidInput` if the environment holds a `BOTWIRE_…` variable that nothing reads."""
    for name in os.environ:
        if name.startswith("BOTWIRE_") and name not in VARIABLES:
            import difflib  # only for the hint

            close = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(VARIABLES)}."
            raise InvalidInput(f"unknown environment variable {name}: {hint} Unset it or correct it")
