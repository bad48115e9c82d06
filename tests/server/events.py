"""Server-sent events as a client reads them, from a real connection."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from tests.server.running import PATIENCE, Served


class Event(NamedTuple):
    """An event, or a block that only says where to go on."""

    kind: str
    id: str
    data: Any


class Stream:
    """A stream, read as browsers read it: what was not ended by an empty line has not come."""

    def __init__(self, server: Served, path: str, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        sent = {"Accept": "text/event-stream"} | {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("GET", path, headers=sent)
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.last_id = headers.get("Last_Event_ID", "")
        self.comments = 0
        self._rest = b""

    def blocks(self, most: int = 1 << 60) -> Iterator[Event]:
        """What comes, until the other side ends it, or `most` bytes have been read."""
        while most > 0 and (piece := self.response.read1(min(most, 65_536))):
            most -= len(piece)
            *blocks, self._rest = (self._rest + piece).split(b"\n\n")
            for block in blocks:
                yield from self._event(block)

    def _event(self, block: bytes) -> Iterator[Event]:
        fields = {"event": "", "data": "null"}
        for line in block.decode().split("\n"):
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif name == "id":
                self.last_id = value
            else:
                fields[name] = value
        yield Event(fields["event"], self.last_id, json.loads(fields["data"]))

    def blocks_until(self, last_id: str) -> Iterator[Event]:
        """What comes, up to the event with this id."""
        for event in self.blocks():
            yield event
            if event.id == last_id:
                return

    def next(self, kind: str = "change") -> Event:
        """The next event of this kind."""
        for event in self.blocks_one_by_one():
            if event.kind == kind:
                return event
        raise AssertionError(f"the stream ended before there was any {kind!r}")

    def blocks_one_by_one(self) -> Iterator[Event]:
        """The same, a byte at a time: what is not asked for stays where it is."""
        while piece := self.response.read(1):
            self._rest += piece
            if self._rest.endswith(b"\n\n"):
                block, self._rest = self._rest[:-2], b""
                yield from self._event(block)

    def close(self) -> None:
        """Break the connection."""
        self.response.close()
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
