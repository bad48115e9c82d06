"""The MCP SDK's two lines behind one face: 1.x registers handlers by request type, 2.x by method.

Handlers take and give the JSON of the protocol, which is the same in both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from botwire.adapting import missing

try:
    from mcp import types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.shared import exceptions
except ModuleNotFoundError as error:
    if error.name != "mcp":
        raise
    raise missing("mcp", error) from error

__all__ = ["Server", "StreamableHTTPSessionManager", "make_server", "stdio"]

IS_V1: Final = hasattr(Server, "call_tool")

Handler = Callable[[Any, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Takes the HTTP request that brought it (`None` over stdio) and the parameters; gives the result."""

# method: the names of its parameters (2.x), its request (1.x) and its result in `mcp.types`
_TYPES: Final = {
    "tools/list": ("PaginatedRequestParams", "ListToolsRequest", "ListToolsResult"),
    "tools/call": ("CallToolRequestParams", "CallToolRequest", "CallToolResult"),
    "resources/list": ("PaginatedRequestParams", "ListResourcesRequest", "ListResourcesResult"),
    "resources/templates/list": (
        "PaginatedRequestParams",
        "ListResourceTemplatesRequest",
        "ListResourceTemplatesResult",
    ),
    "resources/read": ("ReadResourceRequestParams", "ReadResourceRequest", "ReadResourceResult"),
}


def make_server(name: str, version: str, instructions: str, handlers: dict[str, Handler]) -> Server[Any]:
    """A server of the SDK that answers these methods."""
    server: Any = Server(name, version=version, instructions=instructions)
    for method, handler in handlers.items():
        params, request, result = (getattr(types, each) for each in _TYPES[method])
        if IS_V1:
            server.request_handlers[request] = _by_request(server, handler, result)
        else:
            server.add_request_handler(method, params, _by_method(handler, result))
    return server  # type: ignore[no-any-return]  # what it is depends on the line


def _by_request(server: Any, handler: Handler, result: Any) -> Any:
    """The handler as 1.x calls it."""
    wrap: Any = types.ServerResult

    async def handle(request: Any) -> Any:
        found = await handler(server.request_context.request, _plain(request.params))
        return wrap(result.model_validate(found))

    return handle


def _by_method(handler: Handler, result: Any) -> Any:
    """The handler as 2.x calls it."""

    async def handle(context: Any, params: Any) -> Any:
        return result.model_validate(await handler(context.request, _plain(params)))

    return handle


def _plain(params: Any) -> dict[str, Any]:
    """The parameters as they came."""
    if params is None:
        return {}
    found: dict[str, Any] = params.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def protocol_error(code: int, message: str) -> Exception:
    """What a handler raises to answer with an error of the protocol."""
    if IS_V1:
        kind: Any = exceptions.McpError  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # 1.x
        made: Exception = kind(types.ErrorData(code=code, message=message))
        return made
    return exceptions.MCPError(code, message)


def stdio() -> AbstractAsyncContextManager[Any]:
    """The streams of a server that talks over stdin and stdout."""
    if not IS_V1:
        return stdio_server()
    import anyio  # the SDK's own

    # 1.x would close stdin and stdout with the streams that it makes of them: it gets some of its own.
    read = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115  # by number, and left open
    write = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # as above
    return stdio_server(anyio.wrap_file(read), anyio.wrap_file(write))
