"""Log lines, as text or JSON, each with the id of the request that it is about; never API keys, never values."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

from .keys import redacted
from .settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log: Final = logging.getLogger("botwire.server")
"""Where the server logs to. `extra={"fields": {…}}` adds fields to a line."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered."""


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Have everything that this process logs go to `stream` (stderr) as the settings say."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONLines() if settings.log_format == "json" else TextLines())
    handler.addFilter(_is_news)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(settings.log_level.upper())
    # What strangers send must not fill the disk: uvicorn warns of each malformed request; /metrics counts them.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def _is_news(record: logging.LogRecord) -> bool:
    """Not when a request is cut off because the server stops: that is told once."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    if (current := request_id.get()) is not None:
        fields.setdefault("request_id", current)
    return fields


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JSONLines(logging.Formatter):
    """One JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
            **{name: redacted(value) if isinstance(value, str) else value for name, value in _fields(record).items()},
        }
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=True, default=str)


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z info  message field=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback below it."""
        fields = " ".join(f"{name}={_plain(value)}" for name, value in _fields(record).items())
        text = f"{_time(record)} {record.levelname.lower():<7} {_one_line(record.getMessage())} {fields}".rstrip()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return redacted(text)


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text.isprintable() or " " in text or '"' in text or not text else text


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()


class AccessLog:
    """ASGI middleware: a line for each request, without its query string."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and note what was answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            _note_request(scope, status, time.perf_counter() - begun)


def _note_request(scope: Scope, status: int, seconds: float) -> None:
    principal = scope.get("botwire.principal")
    client = scope.get("client")
    fields = {
        "method": scope["method"],
        "path": scope.get("raw_path", scope["path"].encode()).decode("latin-1"),
        "status": status or "none",
        "ms": round(seconds * 1_000, 2),
        "request_id": scope.get("botwire.request_id"),
        "principal": getattr(principal, "id", principal),
        "client": client[0] if client else None,
    }
    log.info("request", extra={"fields": {name: value for name, value in fields.items() if value is not None}})
