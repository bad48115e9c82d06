"""botwire's server: HTTP in front of a store. It has no storage idea of its own.

from botwire_server import Settings, create_app

app = create_app(store, Settings())   # an ASGI app; `botwire serve` runs one
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .settings import Settings

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:  # lazily, so that `botwire --help` does not wait for a web framework
    if name == "Settings":
        from .settings import Settings

        return Settings
    if name == "create_app":
        try:
            from .app import create_app
        except ModuleNotFoundError as error:
            raise ImportError(f'the server needs {error.name}: pip install "botwire[server]"') from error
        return create_app
    raise AttributeError(f"module 'botwire_server' has no attribute {name!r}")
