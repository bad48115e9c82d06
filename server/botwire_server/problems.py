"""Errors as answers: problem bodies (RFC 9457) with their status and headers."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from botwire import wire
from botwire.errors import BotWireError, Conflict, StoreError
from botwire.wire import Problem

from . import limits

log = logging.getLogger("botwire.server")

REALM: Final = 'Bearer realm="botwire"'


class Refused(Exception):
    """A request that HTTP itself lets one refuse: there is no error of botwire for it."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})


def refusal(status: int, detail: str, request_id: str | None = None) -> Problem:
    """The problem of a `Refused`: it means what its status means."""
    return Problem("about:blank", HTTPStatus(status).phrase, status, detail, request_id=request_id)


def answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as a response."""
    return Response(msgspec.json.encode(problem), problem.status, headers, wire.PROBLEM_MEDIA)


def of_error(error: BotWireError, scope: Mapping[str, Any]) -> Response:
    """The answer that tells of an error."""
    problem = problem_of(error, scope)
    if isinstance(error, Conflict) and _has_precondition(scope):
        problem = msgspec.structs.replace(problem, status=412)
    response = answer(problem, {"WWW-Authenticate": REALM} if problem.status == HTTPStatus.UNAUTHORIZED else None)
    response.raw_headers += limits.headers_of(error)
    return response


def problem_of(error: BotWireError, scope: Mapping[str, Any]) -> Problem:
    """The body that tells of an error; what goes wrong with the store is logged, too."""
    problem = wire.problem_of(error, request_id_of(scope))
    if isinstance(error, StoreError):  # the others are told to the caller alone: they may name what is stored
        log.warning("%s", error, extra={"fields": {"status": problem.status, "error": type(error).__name__}})
    return problem


def of_refusal(error: Refused, scope: Mapping[str, Any]) -> Response:
    """The answer to a request that was refused."""
    return answer(refusal(error.status, str(error), request_id_of(scope)), error.headers)


def unexpected(error: Exception, scope: Mapping[str, Any]) -> Response:
    """The answer to a mistake of ours: the log knows what it was, the caller how to ask for it."""
    return answer(unexpected_problem(error, scope))


def unexpected_problem(error: Exception, scope: Mapping[str, Any]) -> Problem:
    """Log a mistake of ours. Returns the problem that tells of it, without its text."""
    request_id = request_id_of(scope)
    log.error("unexpected error in request %s", request_id, exc_info=error, extra={"fields": {"status": 500}})
    return refusal(500, "the server made a mistake; its log knows this request by its id", request_id)


def request_id_of(scope: Mapping[str, Any]) -> str:
    """What the log calls this request."""
    found: str | None = scope.get("botwire.request_id")
    return found if found is not None else os.urandom(8).hex()


def _has_precondition(scope: Mapping[str, Any]) -> bool:
    headers = Headers(raw=scope["headers"])
    return "if-match" in headers or "if-none-match" in headers


async def of_http(request: Request, error: Exception) -> Response:
    """The answer to what the router refuses: a path that is not there."""
    assert isinstance(error, HTTPException)  # it is registered for these
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = "there is nothing at this path: /openapi.json lists what there is"
    return answer(refusal(error.status_code, detail, request_id_of(request.scope)), error.headers)
