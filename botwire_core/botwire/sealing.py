"""Sealing: encryption keys, and how values and names are encrypted with them. No I/O, no ops.

**The construction** is AES-256-SIV, RFC 5297 ("Synthetic Initialization Vector Authenticated Encryption"), for
everything. Its two keys are made from the secret with HKDF-Expand (RFC 5869, SHA-512), one pair for what is stored
and one for names.

* What is stored gets a nonce of 128 random bits, passed as the last associated string as section 3 of the RFC says.
  SIV doesn't break when a nonce comes twice: all one could see then is that the same text was stored at the same
  place again. NIST SP 800-38B, on the CMAC inside, puts the limit of a key at 2^48 messages.
* Names are encrypted without a nonce (deterministic authenticated encryption, section 4): the same name is
  the same hidden name, so it can be looked up by somebody who cannot read it.

**An envelope** is JSON text, so that it passes wherever a value does: `"bwe1:<key id>:<base64>"`, and in the base64
the nonce and what SIV makes of the value. What it is bound to (a namespace and a key, or a message) stands in
no envelope: whoever opens it has to know.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from .errors import InvalidInput, StoreCorrupt

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

KEY_PREFIX: Final = "bwk1_"
MARK: Final = b'"bwe1:'  # how an envelope begins
NONCE_BYTES: Final = 16
MAX_HIDDEN_BYTES: Final = 320  # what is left of 512 bytes for a name once it is padded, authenticated and in base64

_SECRET_BYTES = 32
_CHECKSUM_BYTES = 4
_ID_CHARACTERS = 8
_PAYLOAD = len(MARK) + _ID_CHARACTERS + 1  # where the base64 begins

_base64_decode = msgspec.json.Decoder(bytes).decode  # twice as fast as binascii, and as strict
_is_key = re.compile(r"bwk1_[A-Za-z0-9_-]{48}").fullmatch
_is_envelope = re.compile(rb'"bwe1:[A-Za-z0-9_-]{8}:[A-Za-z0-9+/]{43,}={0,2}"').fullmatch
_is_hidden = re.compile(r"~[A-Za-z0-9_-]{64,}").fullmatch
_is_made_id = re.compile(r"~[A-Za-z0-9_-]{22}").fullmatch


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────


def generate_key() -> str:
    """A new key: 256 random bits, and a checksum so that a mistyped one is noticed.

    >>> generate_key().startswith("bwk1_")
    True
    """
    secret = secrets.token_bytes(_SECRET_BYTES)
    return KEY_PREFIX + _base64url(secret + _checksum(secret))


def _checksum(secret: bytes) -> bytes:
    return hashlib.sha256(KEY_PREFIX.encode() + secret).digest()[:_CHECKSUM_BYTES]


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def parse_key(text: Any) -> bytes:
    """The secret in a key. Raises `InvalidInput`, which never shows what was given: it may be nearly a key."""
    if not isinstance(text, str):
        raise InvalidInput(f"an encryption key must be a str as `botwire keygen` prints it, not {type(text).__name__}")
    if not text.startswith(KEY_PREFIX):
        raise InvalidInput(
            f"an encryption key begins with {KEY_PREFIX!r}: make one with `botwire keygen`. A password is no key"
        )
    if not _is_key(text):
        raise InvalidInput(
            f"this encryption key has {len(text)} characters, or one that does not belong there: a key is "
            f"{KEY_PREFIX!r} and 48 letters, digits, '-' or '_', with no white space"
        )
    data = base64.urlsafe_b64decode(text.removeprefix(KEY_PREFIX))
    secret, checksum = data[:_SECRET_BYTES], data[_SECRET_BYTES:]
    if checksum != _checksum(secret):
        raise InvalidInput("this encryption key is mistyped: its checksum does not fit. Copy it again")
    return secret


class Key:
    """One key. Its `id` stands in every envelope that was made with it, and tells nothing of the secret."""

    __slots__ = ("_names", "_requests", "_values", "id", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        id_, self._requests, self._values, self._names = _from_secret(parse_key(text))
        self.id = _base64url(id_[:6])

    def __repr__(self) -> str:
        return f"Key({self.id})"

    def derive(self, *parts: str | int) -> bytes:
        """16 bytes that are always the same for the same parts, and random to whoever does not have the key."""
        return hashlib.blake2b(msgspec.msgpack.encode(parts), key=self._requests, digest_size=NONCE_BYTES).digest()

    def seal(self, text: bytes, bound: str, nonce: bytes) -> Raw:
        """An envelope with the text, which opens only where the same `bound` is given."""
        sealed = nonce + self._values.encrypt(text, [bound.encode(), nonce])
        return Raw(b'%b%b:%b"' % (MARK, self.id.encode(), binascii.b2a_base64(sealed, newline=False)))

    def open(self, payload: bytes, bound: str) -> bytes | None:
        """What is in the base64 of an envelope; `None` if it was tampered with, or is bound to something else."""
        try:
            sealed = _base64_decode(b'"' + payload + b'"')
        except msgspec.MsgspecError:
            return None
        tail = sealed[-(len(sealed) % 3 or 3) :]
        if binascii.b2a_base64(tail, newline=False) != payload[-4:]:  # base64 can say the same in several ways
            return None
        return _decrypted(self._values, sealed[NONCE_BYTES:], [bound.encode(), sealed[:NONCE_BYTES]])

    def hide(self, name: str, bound: str) -> str:
        """A name as one who cannot read it may know it: always the same for the same name and `bound`."""
        text = name.encode()
        # 32, 80, 128 … bytes: lengths are told in steps of 48 only, and base64 comes out even.
        padded = text.ljust(len(text) + (32 - len(text)) % 48, b"\0")
        return "~" + _base64url(self._names.encrypt(padded, [bound.encode()]))

    def unhide(self, hidden: str, bound: str) -> str | None:
        """The name behind a hidden one; `None` if there is none."""
        if not _is_hidden(hidden) or len(hidden) % 4 != 1:
            return None
        text = _decrypted(self._names, base64.urlsafe_b64decode(hidden[1:]), [bound.encode()])
        return None if text is None else text.rstrip(b"\0").decode()


def _from_secret(secret: bytes) -> tuple[bytes, bytes, AESSIV, AESSIV]:
    """What a key works with: its id, what numbers are derived with, and the ciphers for values and for names."""
    try:  # here, and not above: only who encrypts needs the package
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV
        from cryptography.hazmat.primitives.hashes import SHA512
        from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise ImportError('encryption needs the package cryptography: pip install "botwire[encryption]"') from error

    def expanded(what: str) -> bytes:
        return HKDFExpand(SHA512(), 64, f"botwire 1 {what}".encode()).derive(secret)

    return expanded("key id"), expanded("request ids"), AESSIV(expanded("values")), AESSIV(expanded("names"))


def _decrypted(cipher: AESSIV, sealed: bytes, bound: Sequence[bytes]) -> bytes | None:
    from cryptography.exceptions import InvalidTag  # loaded by now: there is a cipher

    if len(sealed) <= 16:  # the synthetic IV alone
        return None
    try:
        return cipher.decrypt(sealed, bound)
    except InvalidTag:
        return None


class Keyring:
    """The keys of a memory: the first one seals, all of them open. Names are hidden with the last, the oldest one.

    For names have to be found again: a hidden name that is made with another key is another name.
    """

    __slots__ = ("_by_id", "keys", "newest", "oldest")

    def __init__(self, key: str | Sequence[str]) -> None:
        texts = [key] if isinstance(key, str) or not isinstance(key, list | tuple) else list(key)
        if not texts:
            raise InvalidInput("the list of encryption keys is empty: give one, or leave encryption_key out")
        self.keys = tuple(_key(text) for text in texts if parse_key(text))
        self.newest, self.oldest = self.keys[0], self.keys[-1]
        self._by_id = {key.id.encode(): key for key in self.keys}
        if len(self._by_id) < len(self.keys):
            raise InvalidInput("an encryption key stands twice in the list: give each once, the newest first")

    @property
    def texts(self) -> tuple[str, ...]:
        """The keys as they were given."""
        return tuple(key.text for key in self.keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyring) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(key.id for key in self.keys)})"

    def open(self, raw: Raw, bound: str) -> bytes:
        """What is in an envelope.

        Raises `InvalidInput` if it is none, or was made with a key that is not here, and `StoreCorrupt` if it was
        tampered with, or made for another place.
        """
        envelope = bytes(raw)
        key_id = id_of_key(envelope)
        if key_id is None:
            raise InvalidInput(
                f"{described(bound)} is not encrypted: read it without encryption_key; to encrypt a whole memory, "
                "copy it with copy_to into an empty one that has a key"
            )
        key = self._by_id.get(key_id)
        if key is None:
            raise InvalidInput(
                f"{described(bound)} was encrypted with the key {key_id.decode(errors='replace')}, and given was "
                f"{' and '.join(each.id for each in self.keys)}: pass encryption_key=[newest, …, that one]"
            )
        text = key.open(envelope[_PAYLOAD:-1], bound)
        if text is None:
            raise StoreCorrupt(
                f"{described(bound)} cannot be decrypted, though its key {key.id} is here: it was changed outside of "
                "botwire, or moved here from another place"
            )
        return text


@lru_cache(maxsize=64)
def _key(text: str) -> Key:  # a memory is often made anew for each request
    return Key(text)


def id_of_key(envelope: bytes) -> bytes | None:
    """The id of the key that an envelope was made with; `None`: it is no envelope."""
    if not envelope.startswith(MARK) or envelope[_PAYLOAD - 1 : _PAYLOAD] != b":" or not envelope.endswith(b'"'):
        return None
    return envelope[len(MARK) : _PAYLOAD - 1]


def is_envelope(raw: Raw | bytes) -> bool:
    """Whether this is what sealing makes: no JSON text that somebody happened to store."""
    text = bytes(raw)
    return text.startswith(MARK) and _is_envelope(text) is not None


def is_hidden_name(name: str) -> bool:
    """Whether this looks like a hidden name."""
    return _is_hidden(name) is not None


# ── message ids ─────────────────────────────────────────────────────────────────────────────────────


def made_id(number: bytes) -> str:
    """An id for a message that was given none."""
    return "~" + _base64url(number)


def is_made_id(name: str) -> bool:
    """Whether `made_id` has made this."""
    return _is_made_id(name) is not None


# ── what an envelope is bound to ────────────────────────────────────────────────────────────────────

# Names hold no control characters, so NUL keeps them apart.


def bound_value(namespace: str, key: str) -> str:
    """What a value is bound to."""
    return f"value\0{namespace}\0{key}"


def bound_message(namespace: str, conversation: str, id_: str, role: str | None) -> str:
    """What a message is bound to: its role too, so that what a user said never becomes what the system says."""
    return f"message\0{namespace}\0{conversation}\0{id_}\0{role or ''}"


def described(bound: str) -> str:
    """What an envelope is bound to, for an error."""
    kind, namespace, name, *more = bound.split("\0")
    if kind == "value":
        return f"the value of {name!r} in {namespace!r}"
    return f"a message of conversation {name!r} in {namespace!r} (id {more[0]!r}, role {more[1] or None!r})"
