"""A store around a store: what reaches the inner one is encrypted. See `docs/encryption.md`."""

from botwire.sealing import generate_key

from .rotation import Rewritten
from .store import AsyncEncrypted, Encrypted

__all__ = ["AsyncEncrypted", "Encrypted", "Rewritten", "generate_key"]
