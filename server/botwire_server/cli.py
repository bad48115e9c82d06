"""`botwire serve`: the options are the settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import click

from botwire.errors import BotWireError
from botwire.settings import check_environment

from .settings import TABLE, Setting, load

_METAVARS: Final[dict[Any, str]] = {str: "TEXT", int: "NUMBER", float: "NUMBER", tuple: "A,B,…"}
_PLACES: Final = {"store": "URL", "host": "ADDRESS", "tls_cert": "FILE", "tls_key": "FILE"}


def _option(setting: Setting) -> Callable[[Any], Any]:
    if setting.kind is bool:
        both = f"{setting.flag}/--no-{setting.flag[2:]}"
        return click.option(both, setting.name, default=None, help=_help(setting))
    metavar = "|".join(setting.choices) or _PLACES.get(setting.name) or _METAVARS[setting.kind]
    return click.option(
        setting.flag, setting.name, metavar=metavar, multiple=setting.kind is tuple, help=_help(setting)
    )


def _help(setting: Setting) -> str:
    shown = ("on" if setting.default else "off") if setting.kind is bool else setting.default
    return setting.about.text + ("" if shown in (None, ()) else f"  [default: {shown}]")


def _settings(command: Any) -> Any:
    """Give a command an option for each setting."""
    for setting in reversed(TABLE.values()):
        command = _option(setting)(command)
    return command


@click.command()
@click.option("--config", metavar="FILE", help="TOML file with settings. By default BOTWIRE_CONFIG, else none.")
@_settings
@click.pass_context
def serve(ctx: click.Context, /, config: str | None, **given: Any) -> int:
    """Serve a store over HTTP, until Ctrl-C.

    Every option can also be set in the environment (--max-body is BOTWIRE_MAX_BODY), or in a TOML file (max_body =
    1000000). Options win over the environment, that over the file. With stdout in a pipe, one line of JSON there says
    that the server is ready, and at which URL.
    """
    above = ctx.find_root().params
    if above.get("namespace") is not None:
        raise click.UsageError("a server serves all namespaces of its store: leave out -n")
    given["store"] = given["store"] or above.get("url")
    check_environment()
    settings = load(given, os.environ, config)
    try:
        from . import serve as runner  # brings the web framework: only when it is run
    except ModuleNotFoundError as error:
        raise BotWireError(f'the server needs {error.name}: pip install "botwire[server]"') from error
    return runner.serve(settings, os.environ)
