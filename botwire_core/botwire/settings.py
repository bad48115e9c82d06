"""The environment variables that botwire reads: these tables know them all, and any other `BOTWIRE_…` is an error.

A misspelt variable that is silently ignored sends memories to the wrong place. `botwire serve` reads more of them: each
of its settings is one, see [The server](server.md#settings).
"""

from __future__ import annotations

import os
from typing import Final

from .errors import InvalidInput

VARIABLES: Final[dict[str, str]] = {
    "BOTWIRE_URL": "where memories are kept when no `url=` is given; without it, a file in the user's data directory",
    "BOTWIRE_API_KEY": "what a server knows its caller by when no `api_key=` is given",
}

# The core imports no server; a test holds that this is what its settings say.
SERVER_VARIABLES: Final = frozenset(
    {
        "BOTWIRE_ACCESS_LOG",
        "BOTWIRE_ALLOWED_HOSTS",
        "BOTWIRE_ALLOWED_ORIGINS",
        "BOTWIRE_AUDIT",
        "BOTWIRE_BODY_TIMEOUT",
        "BOTWIRE_BURST",
        "BOTWIRE_CONFIG",
        "BOTWIRE_DURABILITY",
        "BOTWIRE_FREE_TIER",
        "BOTWIRE_HEADER_TIMEOUT",
        "BOTWIRE_HEARTBEAT",
        "BOTWIRE_HOST",
        "BOTWIRE_INSECURE_HTTP",
        "BOTWIRE_KEYS",
        "BOTWIRE_LOG_FORMAT",
        "BOTWIRE_LOG_LEVEL",
        "BOTWIRE_MAX_BATCH",
        "BOTWIRE_MAX_BODY",
        "BOTWIRE_MAX_BYTES",
        "BOTWIRE_MAX_CONNECTIONS",
        "BOTWIRE_MAX_STREAMS",
        "BOTWIRE_METRICS",
        "BOTWIRE_PORT",
        "BOTWIRE_REQUESTS_PER_SECOND",
        "BOTWIRE_SHUTDOWN_TIMEOUT",
        "BOTWIRE_STORE",
        "BOTWIRE_TLS_CERT",
        "BOTWIRE_TLS_KEY",
        "BOTWIRE_TRUSTED_PROXIES",
        "BOTWIRE_WRITES_PER_DAY",
    }
)


def check_environment() -> None:
    """Raise `InvalidInput` if the environment holds a `BOTWIRE_…` variable that nothing reads."""
    known = {*VARIABLES, *SERVER_VARIABLES}
    for name in os.environ:
        if name.startswith("BOTWIRE_") and name not in known:
            import difflib  # only for the hint

            close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(VARIABLES)}."
            raise InvalidInput(f"unknown environment variable {name}: {hint} Unset it or correct it")
