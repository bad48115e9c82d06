"""`POST /v1/execute` and `POST /v1/batches`: ops in, results out; what botwire's own client speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from botwire import wire
from botwire.errors import BotWireError, TooLarge
from botwire.ops import Op
from botwire.wire import Problem

from . import answers, problems
from .doors import Call, Doors, check_request_id

doors = Doors()

ERRORS = (409, 410, 422, 507)


@doors.door("POST", wire.EXECUTE, body=wire.Batch, answers={200: wire.Results}, errors=ERRORS, writes=True)
async def execute(call: Call) -> Response:
    """Run ops in order, all or nothing."""
    ops = wire.decode_ops(await call.raw_body(), _shield(call))
    return _answer(*wire.encode_results(ops, await call.execute(ops)))


@doors.door("POST", wire.BATCHES, body=wire.Batches, answers={200: wire.Answers})
async def batches(call: Call) -> Response:
    """Run the batches of several callers at the same time, each all or nothing, each with an answer of its own."""
    asked = wire.decode_batches(await call.raw_body(), _shield(call))
    _check_size(asked, call.service.settings.max_batch)
    answered = await asyncio.gather(
        *(_one(call, ops, request_id, first=place == 0) for place, (ops, request_id) in enumerate(asked))
    )
    return _answer(*wire.encode_answers([ops for ops, _ in asked], answered))


async def _one(call: Call, ops: Sequence[Op], request_id: str | None, *, first: bool) -> list[Any] | Problem:
    """The results of one batch, or its problem. Each counts as a request; the first has been counted already."""
    try:
        check_request_id(request_id)
        if not first:
            call.service.limits.spend(call.principal, call.address)
        return await call.service.execute(call.principal, ops, request_id)
    except BotWireError as error:
        return problems.problem_of(error, call.request.scope)
    except Exception as error:  # noqa: BLE001  # it is logged, and answered without its text
        return problems.unexpected_problem(error, call.request.scope)


def _shield(call: Call) -> str | None:
    shield = call.header(wire.SHIELD)
    wire.unshielded((), shield)  # refuses a wrong one, also when there is nothing to be shielded
    return shield


def _check_size(asked: Sequence[tuple[Sequence[Op], str | None]], limit: int) -> None:
    count = max(len(asked), sum(len(ops) for ops, _ in asked))
    if count > limit:
        raise TooLarge(f"{count:,} batches or ops in one request: this server takes {limit:,}; send several")


def _answer(body: bytes, shield: str | None) -> Response:
    return Response(body, 200, None if shield is None else {wire.SHIELD: shield}, answers.JSON)
