"""What a server can be told: one table, from which come the flags, the variables, the TOML file and the docs.

Flags win over `BOTWIRE_…` variables, variables over the file, the file over the defaults. Nothing is guessed: an
unknown name, a wrong type or settings that contradict each other are an error that says where they came from.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from botwire.errors import InvalidInput


class About(NamedTuple):
    """What a setting is for, and the least and the most that it may be."""

    text: str
    least: float | None = None
    most: float | None = None


MEGABYTE = 1024 * 1024


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a server. Each is a flag of `botwire serve`, a variable `BOTWIRE_…`, and a line of a TOML file."""

    store: Annotated[
        str | None,
        About("URL of the store that is served. Left out: `BOTWIRE_URL`, if it names a file; else the default file."),
    ] = None
    durability: Annotated[
        Literal["full", "relaxed"],
        About("`full`: an acknowledged write survives power loss. `relaxed`: it survives the end of the process."),
    ] = "full"
    host: Annotated[str, About("Where to listen. Beyond loopback the server refuses to start without API keys.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, About("The port; 0 takes a free one.", 0, 65_535)] = 8765
    tls_cert: Annotated[str | None, About("File of the TLS certificate chain (PEM).")] = None
    tls_key: Annotated[str | None, About("File of its private key (PEM), without a password.")] = None
    insecure_http: Annotated[
        bool, About("Beyond loopback, listen without TLS and without a trusted proxy: keys then travel in the open.")
    ] = False
    trusted_proxies: Annotated[
        tuple[str, ...],
        About("Addresses or networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...], About("Host names that requests may ask for, besides loopback and `host`; `*` is any.")
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...], About("Web origins that browsers may call from (CORS); none by default.")
    ] = ()
    keys: Annotated[
        Literal["auto", "required", "off"],
        About(
            "`auto`: an API key is needed beyond loopback, and everywhere once one has been made. `off`: loopback only."
        ),
    ] = "auto"
    free_tier: Annotated[
        bool, About("1,000 writes a day and 50 MB in each namespace, the limits of the published free tier.")
    ] = False
    writes_per_day: Annotated[
        int | None,
        About("Writes that a namespace takes in a day; 0: no limit. Left out: as the store has it.", 0, 2**53 - 1),
    ] = None
    max_bytes: Annotated[
        int | None,
        About("Bytes that a namespace holds; 0: no limit. Left out: as the store has it.", 0, 2**53 - 1),
    ] = None
    requests_per_second: Annotated[
        float, About("Requests a second of one key, or without keys of one address; 0: no limit.", 0)
    ] = 0.0
    burst: Annotated[int, About("Requests of one key that may come at once; 0: two seconds' worth.", 0)] = 0
    max_body: Annotated[int, About("Bytes of a request's body, but of an import.", 1)] = 16 * MEGABYTE
    max_batch: Annotated[int, About("Ops in one request.", 1, 10_000)] = 10_000
    max_streams: Annotated[
        int, About("Change streams of one key open at once; 0: no limit. Without keys there is no limit.", 0)
    ] = 100
    max_connections: Annotated[int, About("Connections at once; more get 503.", 1)] = 5_000
    header_timeout: Annotated[
        float, About("Seconds that the head of a request may take, and a new connection may stay without one.", 0.1)
    ] = 20.0
    body_timeout: Annotated[
        float,
        About(
            "Seconds that a body may take between two pieces; an answer that nobody reads is cut off after three times "
            "as long.",
            0.1,
        ),
    ] = 20.0
    heartbeat: Annotated[float, About("Seconds between two signs of life on a quiet change stream.", 0.1)] = 15.0
    shutdown_timeout: Annotated[
        float, About("Seconds that requests under way have to end when the server is told to stop.", 0)
    ] = 10.0
    audit: Annotated[bool, About("Keep a record of writes and refusals: who, what, when; never values.")] = False
    metrics: Annotated[bool, About("Answer `GET /metrics` (Prometheus).")] = True
    access_log: Annotated[bool, About("Log a line for each request.")] = False
    log_format: Annotated[Literal["text", "json"], About("How log lines look.")] = "text"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], About("The least that is logged.")] = "info"

    def __post_init__(self) -> None:
        for setting in TABLE.values():
            value = getattr(self, setting.name)
            if not setting.accepts(value):
                raise InvalidInput(f"{setting.name}={value!r} must be {setting.wanted}")
        for check in _CHECKS:
            check(self)

    def over(self, **given: object) -> Settings:
        """These settings with some others; what is `None` stays as it is."""
        return msgspec.structs.replace(self, **{name: value for name, value in given.items() if value is not None})


# ── the table ───────────────────────────────────────────────────────────────────────────────────────

_WORDS: Final[dict[Any, str]] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


class Setting(NamedTuple):
    """One line of the table."""

    name: str
    kind: Any
    """`str`, `int`, `float`, `bool` or `tuple` (of texts)."""
    choices: tuple[str, ...]
    optional: bool
    default: Any
    about: About

    @property
    def flag(self) -> str:
        """Its flag of `botwire serve`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "BOTWIRE_" + self.name.upper()

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return " or ".join(repr(choice) for choice in self.choices)
        if self.kind is tuple:
            return "a list of texts"
        least, most = (None if limit is None else f"{limit:,}" for limit in self.about[1:])
        limits = f", {least} to {most}" if most else f", {least} or more" if least else ""
        return _WORDS[self.kind] + limits

    def accepts(self, value: Any) -> bool:
        """Whether this is a value of the right type and within the limits."""
        if value is None:
            return self.optional
        if self.choices:
            return value in self.choices
        if self.kind is tuple:
            return isinstance(value, tuple) and all(isinstance(each, str) and each for each in value)
        if self.kind in (bool, str):
            return isinstance(value, self.kind) and value != ""
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
            return False
        least, most = self.about.least, self.about.most
        return math.isfinite(value) and (least is None or value >= least) and (most is None or value <= most)

    def parsed(self, text: str) -> Any:
        """The value that a text means. Raises `ValueError` for one that means none."""
        if self.kind is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if self.kind is bool:
            if text.lower() not in _TRUE | _FALSE:
                raise ValueError(text)
            return text.lower() in _TRUE
        if self.kind is str:
            return text
        if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text):  # not 1e3, 1_000, ١ or nan, which Python would take
            raise ValueError(text)
        return self.kind(text)


def _table() -> dict[str, Setting]:
    hints = get_type_hints(Settings, include_extras=True)
    return {
        field.name: _setting(field.name, hints[field.name], field.default) for field in msgspec.structs.fields(Settings)
    }


def _setting(name: str, hint: Any, default: Any) -> Setting:
    type_, about = get_args(hint)
    optional = get_origin(type_) in (Union, UnionType)
    if optional:
        type_ = next(each for each in get_args(type_) if each is not type(None))
    choices = get_args(type_) if get_origin(type_) is Literal else ()
    kind = str if choices else get_origin(type_) or type_
    return Setting(name, kind, choices, optional, default, about)


TABLE: Final = _table()
"""Every setting, by its name."""

VARIABLES: Final = frozenset({*(setting.variable for setting in TABLE.values()), "BOTWIRE_CONFIG"})
"""The environment variables that `botwire serve` reads, besides `BOTWIRE_URL`."""


# ── what contradicts itself ─────────────────────────────────────────────────────────────────────────


class Contradiction(InvalidInput):
    """Settings that cannot hold together: `names` says which."""

    def __init__(self, message: str, *names: str) -> None:
        super().__init__(message)
        self.names = names

    def __reduce__(self) -> tuple[type[Contradiction], tuple[str, ...]]:
        return type(self), (self.args[0], *self.names)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _check_tls(settings: Settings) -> None:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        there, missing = ("tls_cert", "tls_key") if settings.tls_key is None else ("tls_key", "tls_cert")
        raise Contradiction(f"{there} without {missing}: TLS needs both", there)


def _check_keys(settings: Settings) -> None:
    if settings.keys == "off" and not is_loopback(settings.host):
        raise Contradiction(
            f"keys='off' with host={settings.host!r}: beyond loopback every request needs an API key; leave out keys, "
            "and make one with `botwire keys create`",
            "keys", "host",
        )  # fmt: skip


def _check_burst(settings: Settings) -> None:
    if settings.burst and not settings.requests_per_second:
        raise Contradiction(f"burst={settings.burst} without requests_per_second limits nothing: give both", "burst")


def _check_proxies(settings: Settings) -> None:
    for each in settings.trusted_proxies:
        try:
            ipaddress.ip_network(each)
        except ValueError as error:
            raise Contradiction(
                f"trusted_proxies: {error}; write an address or a network, such as 10.0.0.5 or 10.0.0.0/24",
                "trusted_proxies",
            ) from error


def _check_hosts(settings: Settings) -> None:
    for each in settings.allowed_hosts:
        if not re.fullmatch(r"\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", each):
            raise Contradiction(
                f"allowed_hosts: {each!r} is no host name: write memory.example.com, without scheme, port or path",
                "allowed_hosts",
            )


def _check_origins(settings: Settings) -> None:
    for each in settings.allowed_origins:
        if not re.fullmatch(r"https?://[^/@?#\s*]+", each):
            raise Contradiction(
                f"allowed_origins: {each!r} is no web origin: write https://app.example.com, without a path",
                "allowed_origins",
            )


_CHECKS: Final = (_check_tls, _check_keys, _check_burst, _check_proxies, _check_hosts, _check_origins)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


class Given(NamedTuple):
    """A value, and where it was given."""

    value: Any
    origin: str


def from_flags(given: Mapping[str, Any]) -> dict[str, Given]:
    """The settings among the flags; `None` and `()` are flags that were not given."""
    found: dict[str, Given] = {}
    for name, value in given.items():
        setting = TABLE[name]
        if value is None or value == ():
            continue
        if isinstance(value, bool):
            found[name] = Given(value, setting.flag)
        else:
            text = value if isinstance(value, str) else ",".join(value)
            found[name] = _read(setting, text, setting.flag)
    return found


def from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """The settings among the environment variables."""
    return {
        setting.name: _read(setting, environ[setting.variable], setting.variable)
        for setting in TABLE.values()
        if setting.variable in environ
    }


def from_file(path: str) -> dict[str, Given]:
    """The settings in a TOML file."""
    try:
        lines = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the settings file {path} is not TOML: {error}") from error
    found: dict[str, Given] = {}
    for name, value in lines.items():
        setting = TABLE.get(name) or _unknown(name, path)
        found[name] = _taken(setting, tuple(value) if isinstance(value, list) else value, f"{path}: {name}")
    return found


def _unknown(name: str, path: str) -> NoReturn:
    close = difflib.get_close_matches(name.replace("-", "_").lower(), TABLE, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "see the table in docs/server.md."
    raise InvalidInput(f"{path}: unknown setting {name!r}: {hint} Correct it or remove it")


def _read(setting: Setting, text: str, origin: str) -> Given:
    try:
        value = setting.parsed(text)
    except ValueError:
        raise InvalidInput(f"{origin}={text!r}: must be {setting.wanted}") from None
    return _taken(setting, value, origin, text)


def _taken(setting: Setting, value: Any, origin: str, shown: object = None) -> Given:
    if value is None or not setting.accepts(value):
        raise InvalidInput(f"{origin}={value if shown is None else shown!r}: must be {setting.wanted}")
    return Given(value, origin)


def load(flags: Mapping[str, Any], environ: Mapping[str, str], config: str | None = None) -> Settings:
    """The settings of a server: flags over variables over the file over the defaults."""
    path = config or environ.get("BOTWIRE_CONFIG")
    found = {} if path is None else from_file(path)
    found |= from_environment(environ)
    found |= from_flags(flags)
    try:
        return Settings(**{name: given.value for name, given in found.items()})
    except Contradiction as error:
        origins = ", ".join(f"{name} comes from {found[name].origin}" for name in error.names if name in found)
        raise InvalidInput(f"{error} ({origins})" if origins else str(error)) from error
