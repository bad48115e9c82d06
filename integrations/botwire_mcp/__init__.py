"""botwire for MCP clients: a server with tools and resources, over stdio and streamable HTTP.

    botwire mcp --namespace user-42

From Python, `create_server` makes the same server for a transport of yours, and `create_app` an ASGI application:

    from botwire_mcp import create_server

    server = create_server("user-42", url="sqlite:///memory.db")   # a `Server` of the MCP SDK, 1.x or 2.x
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import create_server
    from .web import create_app

__all__ = ["create_app", "create_server"]


def __getattr__(name: str) -> Any:  # lazily: `botwire --help` loads the command, and must not wait for the SDK
    if name == "create_server":
        from .server import create_server

        return create_server
    if name == "create_app":
        from .web import create_app

        return create_app
    raise AttributeError(f"module 'botwire_mcp' has no attribute {name!r}")
