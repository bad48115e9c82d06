"""What a server says when it is ready: to people on stderr, to programs one line of JSON on stdout."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from botwire import __version__

from .logs import log
from .places import Place
from .service import Service
from .settings import Settings

_DURABLE: Final = {
    "full": "durable: an acknowledged write survives power loss",
    "relaxed": "relaxed: an acknowledged write survives the end of the process, power loss may undo the last ones",
    "none": "in memory: it goes when the server ends",
}


def say_hello(settings: Settings, place: Place, service: Service, port: int) -> None:
    """Say that the server is ready, where, and how it is set up."""
    url = url_of(settings, port)
    durability = place.address.durability if place.file else "none"
    required = service.keyring.required
    ready = {
        "url": url,
        "data": str(place.file) if place.file else "memory",
        "durability": durability,
        "keys": required,
        "pid": os.getpid(),
        "version": __version__,
    }
    if settings.log_format == "json":
        log.info("serving", extra={"fields": {**ready, "limits": _limits(settings)}})
    elif log.isEnabledFor(logging.INFO):
        _say_to_people(settings, place, ready)
    if place.note:
        log.warning(place.note)
    if settings.host in ("0.0.0.0", "::", "") and not settings.allowed_hosts:  # noqa: S104  # it is looked for
        log.warning("allowed_hosts is empty: requests that name this machine otherwise than by address are refused")
    if not sys.stdout.isatty():
        sys.stdout.write(json.dumps({"event": "ready", **ready}) + "\n")
        sys.stdout.flush()


def url_of(settings: Settings, port: int) -> str:
    """The URL at which clients find it."""
    host = settings.host.strip("[]")
    if host in ("0.0.0.0", "::"):  # noqa: S104  # it is looked for
        host = next((name for name in settings.allowed_hosts if name != "*"), "127.0.0.1")
    return f"{'https' if settings.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _limits(settings: Settings) -> str:
    writes = 1_000 if settings.free_tier and settings.writes_per_day is None else settings.writes_per_day
    size = 50_000_000 if settings.free_tier and settings.max_bytes is None else settings.max_bytes
    told = [
        f"{writes:,} writes a day in each namespace" if writes else "",
        f"{size:,} bytes in each namespace" if size else "",
        f"{settings.requests_per_second:g} requests a second" if settings.requests_per_second else "",
        f"{settings.max_body:,} bytes a request",
        f"{settings.max_connections:,} connections",
    ]
    return ", ".join(part for part in told if part)


def _say_to_people(settings: Settings, place: Place, ready: Mapping[str, Any]) -> None:
    url, key = ready["url"], ', api_key="bw_…"' if ready["keys"] else ""
    keys = "needed: `botwire keys create` makes one" if ready["keys"] else "off: whoever is on this machine may do all"
    lines = [
        f"botwire {__version__} serves {url}",
        f"  data    {ready['data']} ({_DURABLE[ready['durability']]})",
        f"  keys    {keys}",
        f"  limits  {_limits(settings)}",
        f'  use it  Memory("user-42", url="{url}"{key})',
    ]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
