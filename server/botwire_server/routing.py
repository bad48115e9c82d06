"""From a request to its door: on the path as it was sent, so that `%2F` stays inside a segment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from botwire.errors import BotWireError

from . import problems
from .doors import Call, Door, decoded
from .problems import Refused
from .service import Service

_PATH: Final = "botwire.path"


def path_of(scope: Scope) -> str:
    """The path below where the app is mounted, undecoded; a byte is a character (Latin-1)."""
    found: str | None = scope.get(_PATH)
    if found is None:
        raw: bytes | None = scope.get("raw_path")
        if raw is None:  # ASGI lets a server leave it out; without it, a%2Fb and a/b are one
            raise RuntimeError("this ASGI server passes no raw_path: run botwire's server with uvicorn or granian")
        found = scope[_PATH] = below(raw.partition(b"?")[0].decode("latin-1"), scope.get("root_path", ""))
    return found


def below(path: str, root: str) -> str:
    """What of a raw path comes behind the decoded prefix `root`; all of it, if it does not begin so."""
    root = root.rstrip("/")
    head = "/".join(path.split("/")[: root.count("/") + 1])
    return path[len(head) :] if root and unquote(head) == root else path


class Place(Route):
    """A path, and the doors that open there, one for each method."""

    def __init__(self, path: str, doors: Iterable[Door], service: Service) -> None:
        self.doors = {door.method: door for door in doors}
        if "GET" in self.doors:
            self.doors["HEAD"] = self.doors["GET"]
        self.service = service
        super().__init__(path, self._unused, methods=[*self.doors], name=path)

    async def _unused(self, request: Request) -> Response:
        raise NotImplementedError  # `handle` below answers; Starlette wants an endpoint to name the route by

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request's path is this one; whether its method fits, `handle` finds out."""
        if scope["type"] == "http" and (match := self.path_regex.match(path_of(scope))):
            return Match.FULL, {"endpoint": self.endpoint, "path_params": match.groupdict()}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; an error is answered as a problem."""
        try:
            response = await self._answer(Request(scope, receive, send))
        except BotWireError as error:
            response = problems.of_error(error, scope)
        except Refused as error:
            response = problems.of_refusal(error, scope)
        except ClientDisconnect:
            raise  # the gate has answered, or nobody is left to be answered
        except Exception as error:  # noqa: BLE001  # it is logged, and answered without its text
            response = problems.unexpected(error, scope)
        if scope["method"] == "HEAD":
            await _send_head(response, send)
        else:
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        door = self.doors.get(request.method)
        if door is None:
            allowed = ", ".join(sorted(self.doors))
            raise Refused(405, f"{request.method} is not answered here: {allowed}", {"Allow": allowed})
        names = {
            name: decoded(text.encode("latin-1"), name, lone_percent=door.lone_percent)
            for name, text in request.path_params.items()
        }
        call = Call(request, self.service, door, names)
        _refuse_unheeded(call)
        return await door.handler(call)


def _refuse_unheeded(call: Call) -> None:
    """A condition or a request id that would be ignored is refused: its sender relies on it."""
    headers, door = call.request.headers, call.door
    if not door.conditional and door.method != "GET" and ("if-match" in headers or "if-none-match" in headers):
        raise Refused(412, "If-Match and If-None-Match are not heeded here: leave them out")
    if any(name in headers for name in ("if-unmodified-since", "if-range")) and door.method != "GET":
        raise Refused(412, "versions are the condition here, not times: send If-Match with an ETag")


async def _send_head(response: Response, send: Send) -> None:
    """A response without its body."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": b""})


def places(doors: Iterable[Door], service: Service) -> list[Place]:
    """The routes of these doors."""
    by_path: dict[str, list[Door]] = {}
    for door in doors:
        by_path.setdefault(door.path, []).append(door)
    return [Place(path, there, service) for path, there in by_path.items()]
