"""Stores that are a server somewhere else: what is asked of them is sent as ops to its `/v1/execute`."""

from .async_store import AsyncHTTPStore
from .store import HTTPStore

__all__ = ["AsyncHTTPStore", "HTTPStore"]
