"""The MCP server of a memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Unpack

from botwire import AsyncMemory, Memory, __version__
from botwire.adapting import Place, memory_for
from botwire.errors import BotWireError

from .answers import INSTRUCTIONS, Answers, Refusal, refusal_of
from .sdk import Handler, Server, make_server, protocol_error, stdio

Answer = Callable[[AsyncMemory, dict[str, Any]], Awaitable[dict[str, Any]]]


def create_server(
    namespace: str | None = None,
    *,
    memory: Memory | None = None,
    read_only: bool = False,
    **place: Unpack[Place],
) -> Server[Any]:
    """A low-level `Server` of the MCP SDK over a memory, to be run over a transport of yours.

    Args:
        namespace: whose memory it is; "default" if left out.
        memory: a `Memory`, instead of a namespace and a place.
        read_only: leave out the tools that change something.
        **place: `url`, `api_key` and what else `Memory` takes.

    """
    found = memory_for(memory, namespace, place).twin()
    return server_over(lambda _request: found, read_only=read_only)


def server_over(memory_of: Callable[[Any], AsyncMemory], *, read_only: bool = False) -> Server[Any]:
    """A server that asks for each request which memory it is about."""
    answers = Answers(read_only=read_only)
    methods: dict[str, Answer] = {
        "tools/list": answers.list_tools,
        "tools/call": answers.call_tool,
        "resources/list": answers.list_resources,
        "resources/templates/list": answers.list_templates,
        "resources/read": answers.read_resource,
    }
    handlers = {method: _handler(answer, memory_of) for method, answer in methods.items()}
    return make_server("botwire", __version__, INSTRUCTIONS, handlers)


def _handler(answer: Answer, memory_of: Callable[[Any], AsyncMemory]) -> Handler:
    async def handle(request: Any, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return await answer(memory_of(request), params)
        except BotWireError as error:
            refusal = refusal_of(error)
        except Refusal as error:
            refusal = error
        raise protocol_error(refusal.code, str(refusal))

    return handle


async def serve_stdio(memory: AsyncMemory, *, read_only: bool = False) -> None:
    """Serve one client over stdin and stdout, until it closes them."""
    server = server_over(lambda _request: memory, read_only=read_only)
    async with stdio() as (read, write):
        await server.run(read, write, server.create_initialization_options())
