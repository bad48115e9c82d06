"""Answers that are sent in pieces, as they come to be, for as long as somebody takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PATIENCE: Final = 60.0  # seconds that a reader may leave a piece lying before it is cut off


class Streamed(Response):
    """An answer in pieces. Only the piece that is being sent is held: a slow reader slows down what makes them."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(headers)
        self._sending: asyncio.Task[None] | None = None
        self._over = False

    def pieces(self) -> AsyncGenerator[bytes]:
        """What to send."""
        raise NotImplementedError

    def last(self, error: BaseException | None) -> bytes:
        """What to send after the pieces, or after an error among them. Raising cuts the connection."""
        if error is not None:
            raise error
        return b""

    def end(self) -> None:
        """Send nothing more but `last`."""
        self._over = True
        if self._sending is not None:
            self._sending.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces until they end, or the reader goes."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sending = self._sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                error = None if sending.cancelled() else sending.exception()
                await _take(send, self.last(error), more=False)
        finally:
            self.end()
            gone.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                if self._over:  # a store on Python 3.11 may have lost the cancellation (`asyncio.wait_for` does)
                    return
                await _take(send, piece, more=True)


async def _take(send: Send, piece: bytes, *, more: bool) -> None:
    """Have the reader take a piece. One that does not is taken for gone."""
    try:
        async with asyncio.timeout(PATIENCE):
            await send({"type": "http.response.body", "body": piece, "more_body": more})
    except OSError as error:  # a time-out is one, too
        raise ClientDisconnect from error


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
