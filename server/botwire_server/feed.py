"""The change feed: page by page as JSON, or as it happens as server-sent events.

An event's `id` is the cursor behind its change, so whoever comes back with the last id that it saw (`Last-Event-ID`, as
browsers do by themselves) goes on right there: nothing is missed, nothing comes twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from botwire.errors import BotWireError, InvalidInput, NotAuthenticated
from botwire.ops import Change, ChangePage, Changes

from . import answers, parameters, problems
from .doors import Call, Doors, Media
from .namespaces import NAMESPACE
from .streaming import Streamed

if TYPE_CHECKING:
    from .health import Health

doors = Doors()

PAGE: Final = 500  # changes in one piece
EVENTS: Final = "text/event-stream"

STREAM: Final = Media(
    EVENTS,
    "With `Accept: text/event-stream`: changes as they happen. Each is an event `change`; its `id` is its cursor, its "
    "`data` a Change. An event `problem` says why the stream ends. Comment lines are signs of life.",
)
AFTER: Final = parameters.text(
    "Only changes behind this cursor. Left out: none, but the cursor of now. Empty: from the beginning.",
    {"type": "string", "pattern": "^([vs][0-9]+)?$"},
)
PAGED: Final = {"after": AFTER, "limit": parameters.LIMIT}


@doors.door(
    "GET", NAMESPACE + "/changes", query={**PAGED, "subtree": parameters.SUBTREE}, answers={200: (ChangePage, STREAM)},
    errors=(410, 503),
)  # fmt: skip
async def changes(call: Call) -> Response:
    """The changes of a namespace, or with `subtree` of those below it, too: a page of them, or a stream."""
    return await _answer(call, call.namespace)


@doors.door("GET", "/v1/changes", query=PAGED, answers={200: (ChangePage, STREAM)}, errors=(410, 503))
async def all_changes(call: Call) -> Response:
    """The changes of the whole store: a page of them, or a stream."""
    call.query["subtree"] = True
    return await _answer(call, "")


async def _answer(call: Call, namespace: str) -> Response:
    if not wants_events(call.header("accept")):
        page = await call.ask(Changes(namespace, **call.query))
        return answers.json(page, headers={"Vary": "Accept"})
    if "limit" in call.query:
        raise InvalidInput("limit is for pages: a stream has no end")
    asked: dict[str, Any] = {**call.query, **_resumed(call)}
    op = Changes(namespace, **asked, limit=PAGE)
    first: ChangePage = await call.ask(op)
    headers = {"Content-Type": EVENTS, "Vary": "Accept", "X-Accel-Buffering": "no"}  # nginx must not gather events
    if call.request.method == "HEAD":
        return Streamed(headers)  # it is never sent
    return EventStream(call, op, first, headers)


def _resumed(call: Call) -> dict[str, str]:
    """A reader that comes back says what it has seen; its URL says still where it began."""
    seen = call.header("last-event-id")
    return {"after": seen} if seen else {}


def wants_events(accept: str | None) -> bool:
    """Whether a stream is asked for, rather than a page."""
    wanted = [part.partition(";")[0].strip().lower() for part in (accept or "").split(",")]
    return EVENTS in wanted and answers.JSON not in wanted


class EventStream(Streamed):
    """Changes as server-sent events, until the reader goes, its key is revoked, or the server stops."""

    def __init__(self, call: Call, op: Changes, first: ChangePage, headers: dict[str, str]) -> None:
        super().__init__(headers)
        self.call = call
        self.op = op
        self.first = first
        self._why: BotWireError | None = None
        health: Health = call.request.app.state.health
        with ExitStack() as opened:
            opened.enter_context(call.service.limits.stream(call.principal))
            opened.enter_context(health.stream(self.end))
            opened.enter_context(call.service.keyring.watched(call.principal, self._revoke))
            if self._why is not None:
                raise self._why
            self._open = opened.pop_all()

    def _revoke(self) -> None:
        self._why = NotAuthenticated("this API key has been revoked, changed, or has expired")
        self.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send changes for as long as there is somebody to send them to."""
        with self._open:
            await super().__call__(scope, receive, send)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """What there is, then whatever comes, with signs of life in between."""
        page, op, told = self.first, self.op, ""
        heartbeat = self.call.service.settings.heartbeat
        while True:
            text = b"".join(map(_event, page.changes))
            if not text and page.cursor != told:
                text = b"id: %b\n\n" % page.cursor.encode()  # no event, but the place to go on from
            yield text or b":\n\n"
            told, op = page.cursor, msgspec.structs.replace(op, after=page.cursor)
            if page.more or await self._wait(page.cursor, heartbeat):
                page = await self.call.ask(op)
            else:
                page = ChangePage([], page.cursor)

    async def _wait(self, cursor: str, seconds: float) -> bool:
        op, call = self.op, self.call
        return await call.service.wait(call.principal, op.namespace, cursor, seconds, subtree=op.subtree)

    def last(self, error: BaseException | None) -> bytes:
        """Why the stream ends; nothing when the server stops, for then the reader just comes back."""
        scope = self.call.request.scope
        error = error or self._why
        if isinstance(error, BotWireError):
            return b"event: problem\ndata: %b\n\n" % msgspec.json.encode(problems.problem_of(error, scope))
        return super().last(error)


def _event(change: Change) -> bytes:
    return b"id: %b\nevent: change\ndata: %b\n\n" % (change.cursor.encode(), msgspec.json.encode(change))
