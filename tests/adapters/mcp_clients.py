"""Clients of the MCP server, for its tests: sessions of the SDK, 1.x or 2.x, and `botwire mcp` in a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.server.running import PATIENCE, environment

mcp = pytest.importorskip("mcp")
stdio = pytest.importorskip("mcp.client.stdio")

IS_V1 = not hasattr(mcp, "Client")
WAYS = ["handshake"] if IS_V1 else ["handshake", "modern"]
# `botwire mcp`, also where the package's entry points are older than this command
BOTWIRE = "from botwire.cli import cli, main; from botwire_mcp.command import mcp; cli.add_command(mcp); main()"
COMMAND = [sys.executable, "-c", BOTWIRE, "mcp"]


class Session:
    """A client's session, with answers as they are on the wire."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def tools(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = _plain(await self.client.list_tools())["tools"]
        return found

    async def names(self) -> list[str]:
        return [tool["name"] for tool in await self.tools()]

    async def call(self, name: str, **arguments: Any) -> tuple[str, bool]:
        """What the model is told, and whether it is told as an error."""
        answer = _plain(await self.client.call_tool(name, arguments))
        [content] = answer["content"]
        assert content["type"] == "text"
        return content["text"], answer.get("isError", False)

    async def resources(self) -> list[dict[str, Any]]:
        """All of them, page by page."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = _plain(await self.page(cursor))
            found += page["resources"]
            cursor = page.get("nextCursor")
            if cursor is None:
                return found

    async def page(self, cursor: str | None) -> Any:
        if isinstance(self.client, mcp.ClientSession):
            return await self.client.list_resources(params=mcp.types.PaginatedRequestParams(cursor=cursor))
        return await self.client.list_resources(cursor=cursor)

    async def templates(self) -> list[str]:
        found = _plain(await self.client.list_resource_templates())["resourceTemplates"]
        return [template["uriTemplate"] for template in found]

    async def read(self, uri: str) -> tuple[str, str]:
        """The text of a resource, and its media type."""
        [content] = _plain(await self.client.read_resource(uri))["contents"]
        return content["text"], content["mimeType"]


def _plain(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


@asynccontextmanager
async def session_over(transport: Any, way: str) -> AsyncGenerator[Session]:
    """A session over a transport of the SDK, in one of the ways to begin it."""
    async with AsyncExitStack() as stack:
        if way == "modern":
            yield Session(await stack.enter_async_context(mcp.Client(transport)))
            return
        read, write, *_ = await stack.enter_async_context(transport)
        client = await stack.enter_async_context(mcp.ClientSession(read, write))
        await client.initialize()
        yield Session(client)


def key_maker(folder: Path) -> Callable[..., str]:
    """A function that makes API keys for the store of this folder, as `botwire keys create` does."""

    def make(*options: str) -> str:
        command = [sys.executable, "-c", "from botwire.cli import main; main()", "keys", "create", "--name", "x"]
        env = environment(BOTWIRE_URL=f"sqlite:///{folder / 'memory.db'}")
        done = subprocess.run([*command, *options], env=env, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return next(word for word in done.stdout.split() if word.startswith("bw_"))

    return make


def run(*options: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """`botwire mcp` with these options and this on its stdin."""
    return subprocess.run(
        [*COMMAND, *options], env=environment(**environ), input=stdin, capture_output=True, text=True, timeout=PATIENCE
    )
