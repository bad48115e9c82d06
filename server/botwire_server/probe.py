"""`python -m botwire_server.probe`: whether the server of this machine is ready, for health checks of containers."""

from __future__ import annotations

import os
import ssl
import sys
import urllib.request

from .settings import load


def main() -> int:
    """Ask `/readyz` of the server that the environment describes. Returns the exit code."""
    settings = load({}, os.environ)
    tls = None
    if settings.tls_cert is not None:
        tls = ssl.create_default_context()
        tls.check_hostname = False  # it is asked by address, whatever its name is
        tls.verify_mode = ssl.CERT_NONE
    url = f"http{'s' if tls else ''}://127.0.0.1:{settings.port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=4, context=tls):  # noqa: S310  # the scheme is ours
            return 0
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
