"""`botwire mcp`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from botwire.errors import BotWireError
from botwire.settings import check_environment

if TYPE_CHECKING:
    from .running import Listen


def _address(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, int] | None:
    """`HOST:PORT`."""
    if text is None:
        return None
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s/]+):([0-9]{1,5})", text)
    if not found or int(found[2]) > 65_535:
        raise click.BadParameter(f"{text!r} is no address: write 127.0.0.1:8766")
    return found[1].strip("[]"), int(found[2])


@click.command()
@click.option("--url", metavar="URL", help="Where the memory is, as for every command.")
@click.option("-n", "--namespace", metavar="NAME", help="Whose memory it is.  [default: default]")
@click.option("--read-only", is_flag=True, help="Offer only the tools that change nothing.")
@click.option("--http", callback=_address, metavar="HOST:PORT", help="Serve streamable HTTP at /mcp, not stdio.")
@click.option("--allowed-hosts", metavar="A,B,…", help="Host names that clients may call it by, such as a proxy's.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM), to listen beyond this machine.")
@click.option("--tls-key", metavar="FILE", help="Its private key (PEM), without a password.")
@click.option("--insecure-http", is_flag=True, help="Beyond this machine, listen without TLS all the same.")
@click.pass_context
def mcp(
    ctx: click.Context,
    /,
    url: str | None,
    namespace: str | None,
    read_only: bool,
    http: tuple[str, int] | None,
    allowed_hosts: str | None,
    **secure: Any,
) -> None:
    """Serve a memory to MCP clients, over stdin and stdout.

    With --http over HTTP: each caller's API key then goes on to the server that --url names. A file has no keys, and is
    served to this machine alone.
    """
    check_environment()
    above = ctx.find_root().params
    url = above.get("url") if url is None else url
    namespace = above.get("namespace") if namespace is None else namespace
    namespace = "default" if namespace is None else namespace
    given = [name for name, value in {"allowed_hosts": allowed_hosts, **secure}.items() if value]
    if http is None and given:
        raise click.UsageError(f"--{given[0].replace('_', '-')} goes with --http")
    try:
        if http is None:
            _over_stdio(namespace, url, read_only)
        else:
            from .running import Listen  # brings the SDK: only when it is run

            names = tuple(filter(None, (allowed_hosts or "").split(",")))
            _over_http(namespace, url, read_only, Listen(*http, names, **secure))
    except ImportError as error:
        raise BotWireError(str(error)) from error


def _over_stdio(namespace: str, url: str | None, read_only: bool) -> None:
    import asyncio
    import signal

    from botwire import AsyncMemory

    from .answers import check
    from .server import serve_stdio

    async def run() -> None:
        async with AsyncMemory(namespace, url) as memory:
            await check(memory)
            await serve_stdio(memory, read_only=read_only)

    # A thread waits for the next line of stdin, and cannot be told to stop: Ctrl-C ends the process, as SIGTERM does.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        asyncio.run(run())
    except* BrokenPipeError:
        pass  # the client is gone, and there is nobody to tell


def _over_http(namespace: str, url: str | None, read_only: bool, listen: Listen) -> None:
    from .running import serve_http

    serve_http(namespace, url, listen, read_only=read_only)
