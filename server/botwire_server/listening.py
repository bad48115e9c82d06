"""What a server listens on: its sockets, its certificate, and how many connections the system lets it have."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path
from typing import Any, Final, cast

from botwire.errors import BotWireError, InvalidInput

from .logs import log
from .settings import Settings, is_loopback

SPARE_FILES: Final = 100  # descriptors besides those of connections


def check_open(settings: Settings) -> None:
    """Raise `InvalidInput` if keys would travel in the open."""
    if is_loopback(settings.host) or settings.tls_cert or settings.trusted_proxies or settings.insecure_http:
        return
    raise InvalidInput(
        f"host={settings.host!r} is beyond loopback, and without TLS API keys and memories travel in the open: give "
        "--tls-cert and --tls-key; or name the proxy that does TLS with --trusted-proxies; or say --insecure-http if "
        "the network itself is private"
    )


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What TLS needs; `None` without it."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, settings)
    return context


def load_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Have new connections shown the certificate that is in the files now. Raises `InvalidInput`."""
    cert, key = cast("str", settings.tls_cert), cast("str", settings.tls_key)
    for name, path in (("tls_cert", cert), ("tls_key", key)):
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise InvalidInput(f"{name}={path!r} cannot be read: {error.strerror}") from error
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(
            f"tls_cert={cert!r} and tls_key={key!r} must be a certificate and its own key, in PEM and without a "
            f"password: {error}"
        ) from error


def within_file_limit(settings: Settings) -> Settings:
    """Raise this process's limit of open files as far as connections need; lower theirs if that is not enough."""
    try:
        import resource  # only POSIX has it
    except ModuleNotFoundError:
        return settings
    needed = settings.max_connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return settings
    most = max(1, soft - SPARE_FILES)
    log.warning(
        "max_connections=%d is lowered to %d: this process may open only %d files; raise `ulimit -Hn`",
        settings.max_connections, most, soft,
    )  # fmt: skip
    return settings.over(max_connections=most)


# ── sockets ─────────────────────────────────────────────────────────────────────────────────────────


class Listening:
    """The sockets of the host and port, bound but not listening yet."""

    def __init__(self, settings: Settings) -> None:
        self.sockets: list[socket.socket] = []
        port = settings.port
        try:
            for family, address in _addresses(settings):
                self.sockets.append(_bound(family, (address[0], port, *address[2:])))
                port = self.sockets[0].getsockname()[1]  # of all, when the first one took a free one
        except OSError as error:
            self.close()
            raise why_not(error, settings) from error

    def close(self) -> None:
        """Close what is still open."""
        for each in self.sockets:
            each.close()


def _addresses(settings: Settings) -> list[tuple[int, Any]]:
    try:
        found = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise InvalidInput(f"host={settings.host!r}: {error.strerror}; give an address of this machine") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        _notice_the_dead(made)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _notice_the_dead(made: socket.socket) -> None:
    """Have connections end whose other side is gone without a word: accepted sockets inherit these options."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 60_000}
    for name, value in options.items():  # seconds, seconds, probes, milliseconds
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def why_not(error: OSError, settings: Settings) -> BotWireError:
    """Why it cannot listen, and what to do."""
    where = f"{settings.host}:{settings.port}"
    match error.errno:
        case errno.EADDRINUSE:
            return BotWireError(
                f"{where} is taken by another program: end it, or choose another --port (0: a free one)"
            )
        case errno.EACCES:
            return BotWireError(f"{where}: this user may not listen there; choose a --port of 1024 or more")
        case errno.EADDRNOTAVAIL:
            return InvalidInput(f"host={settings.host!r} is no address of this machine")
        case _:
            return BotWireError(f"{where}: {error.strerror}")
