"""`Sealer`: what of items, messages, names and records is encrypted, and what each is bound to."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Raw
from msgspec.structs import replace

from botwire.errors import InvalidInput, TooLarge
from botwire.names import check_name, is_name
from botwire.ops import (
    ConversationInfo,
    ConversationRecord,
    DumpRecord,
    EndRecord,
    Item,
    ItemRecord,
    Message,
    MessageRecord,
    Meta,
    NamespaceRecord,
    NewMessage,
    Revision,
)
from botwire.sealing import (
    MAX_HIDDEN_BYTES,
    NONCE_BYTES,
    Keyring,
    bound_message,
    bound_value,
    id_of_key,
    is_envelope,
    is_hidden_name,
    is_made_id,
    made_id,
)
from botwire.values import check_text

Ids = Mapping[tuple[str, str, str], str]
"""The stored ids of messages, by namespace, conversation and the `#<version>` that callers know them by."""

_ANY_SIZE = 1 << 62  # how much is too much is the store's policy to say
_NOBODY = "#"  # a message id that no message has


class Draws:
    """The random numbers of one call; with a request id they are the same each time, and so is the ciphertext."""

    def __init__(self, keyring: Keyring, request_id: str | None = None) -> None:
        self._key = keyring.newest
        self._request_id = request_id
        self._count = 0

    def __call__(self) -> bytes:
        """The next one."""
        if self._request_id is None:
            return secrets.token_bytes(NONCE_BYTES)
        self._count += 1
        return self._key.derive("request", self._request_id, self._count)


class Sealer:
    """A keyring, and whether names are hidden: all that it takes to tell plain from stored."""

    def __init__(self, key: str | Sequence[str], *, hide_keys: bool) -> None:
        self.keyring = Keyring(key)
        self.hide_keys = hide_keys

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealer) and (self.keyring, self.hide_keys) == (other.keyring, other.hide_keys)

    def __hash__(self) -> int:
        return hash((self.keyring, self.hide_keys))

    # ── names ──

    def hide(self, kind: str, namespace: str, name: str) -> str:
        """A name as the store below knows it. `kind`: a key, a conversation, or the message ids of one."""
        if not self.hide_keys:
            return name
        if len(name) > MAX_HIDDEN_BYTES // 4 and (size := len(name.encode())) > MAX_HIDDEN_BYTES:
            what = kind.partition("\0")[0]
            raise TooLarge(f"{what} {name[:40]!r}… is {size} bytes long: with hidden keys the limit is 320")
        return self.keyring.oldest.hide(name, f"{kind}\0{namespace}")

    def show(self, kind: str, namespace: str, stored: str) -> str:
        """The name that callers know. Raises `InvalidInput` if it was not hidden here."""
        if not self.hide_keys:
            return stored
        name = self.keyring.oldest.unhide(stored, f"{kind}\0{namespace}")
        if name is None:
            raise InvalidInput(self._why_not_shown(kind, namespace, stored))
        return name

    def _why_not_shown(self, kind: str, namespace: str, stored: str) -> str:
        what, _, conversation = kind.partition("\0")
        where = f"{namespace!r}, conversation {conversation!r}" if conversation else repr(namespace)
        if not is_hidden_name(stored):
            return (
                f"the {what} {stored!r} in {where} is not hidden: leave out hide_keys, or copy everything into an "
                "empty memory that has it"
            )
        for key in self.keyring.keys[:-1]:
            if key.unhide(stored, f"{kind}\0{namespace}") is not None:
                return f"the names in {where} are hidden with the key {key.id}: put it last in encryption_key=[…]"
        return (
            f"a hidden {what} in {where} cannot be decrypted with the key {self.keyring.oldest.id}: names are hidden "
            "with the first key that a memory ever had, so put that one last in encryption_key=[…]; if it is there, "
            "the name was changed outside of botwire"
        )

    def refuse_hidden(self, kind: str, namespace: str, stored: str) -> None:
        """Raise `InvalidInput` if names are hidden here though this sealer hides none."""
        if self.hide_keys or not is_hidden_name(stored):
            return
        if any(key.unhide(stored, f"{kind}\0{namespace}") is not None for key in self.keyring.keys):
            raise InvalidInput(f"the names in {namespace!r} are hidden: open it with hide_keys=True")

    def stored_id(self, namespace: str, conversation: str, id_: str, ids: Ids) -> str:
        """A message id as the store below knows it."""
        if id_.startswith("#"):
            return ids.get((namespace, conversation, id_), id_)
        if not self.hide_keys:
            return _NOBODY if is_made_id(id_) else id_
        if not is_name(id_) or len(id_.encode()) > MAX_HIDDEN_BYTES:
            return _NOBODY
        return self.hide(_ids_of(conversation), namespace, id_)

    # ── items ──

    def seal_value(self, namespace: str, key: str, raw: Raw, draws: Draws) -> Raw:
        """A value in an envelope."""
        return self.keyring.newest.seal(_text(raw), bound_value(namespace, key), draws())

    def open_value(self, namespace: str, key: str, raw: Raw) -> Raw:
        """The value in an envelope."""
        return Raw(self.keyring.open(raw, bound_value(namespace, key)))

    def open_item(self, item: Item, *, valued: bool = True) -> Item:
        """An item as callers know it. `valued`: it comes with its value."""
        key = self.show("key", item.namespace, item.key)
        raw = self.open_value(item.namespace, key, item.raw) if valued else item.raw
        return replace(item, raw=raw, key=key)

    def open_revision(self, namespace: str, key: str, revision: Revision) -> Revision:
        """A revision as callers know it."""
        return revision if revision.deleted else replace(revision, raw=self.open_value(namespace, key, revision.raw))

    # ── conversations ──

    def seal_message(self, namespace: str, conversation: str, new: NewMessage, draws: Draws) -> NewMessage:
        """A new message, sealed, under an id to which it is bound: the caller's, or one made here.

        With the caller's, the same message makes the same envelope: the store below has to see that it is the same
        when it is appended once more.
        """
        key = self.keyring.newest
        if new.id is None:
            id_ = made_id(draws())
            raw = key.seal(_text(new.raw), bound_message(namespace, conversation, id_, new.role), draws())
            return replace(new, raw=raw, id=id_)
        if is_made_id(new.id):
            raise InvalidInput(f"message id {new.id!r} looks like those that an encrypted memory makes: choose another")
        bound = bound_message(namespace, conversation, new.id, new.role)
        raw = key.seal(_text(new.raw), bound, key.derive("message", bound))
        return replace(new, raw=raw, id=self.hide(_ids_of(conversation), namespace, new.id))

    def seal_edited(
        self, namespace: str, conversation: str, id_: str, stored_id: str, role: str | None, raw: Raw, draws: Draws
    ) -> Raw:
        """What a message becomes, in an envelope. `id_` is what callers know it by."""
        bound_to = stored_id if is_made_id(stored_id) else id_
        bound = bound_message(namespace, conversation, bound_to, role)
        return self.keyring.newest.seal(_text(raw), bound, draws())

    def open_message(self, namespace: str, conversation: str, message: Message) -> Message:
        """A message as callers know it: those that were given no id are known by their version."""
        id_ = message.id
        if not is_made_id(id_) and not id_.startswith("#"):
            id_ = self.show(_ids_of(conversation), namespace, id_)
        return self._opened(namespace, conversation, message, id_)

    def _opened(self, namespace: str, conversation: str, message: Message, id_: str) -> Message:
        raw = self.keyring.open(message.raw, bound_message(namespace, conversation, id_, message.role))
        known_as = f"#{message.version}" if is_made_id(id_) else id_
        return replace(message, raw=Raw(raw), id=known_as, conversation=conversation)

    def open_conversation(self, talk: ConversationInfo) -> ConversationInfo:
        """A conversation as callers know it."""
        return replace(talk, name=self.show("conversation", talk.namespace, talk.name))

    # ── records of dumps ──

    def seal_record(self, namespace: str, record: DumpRecord, draws: Draws) -> DumpRecord:
        """A record as the store below may hold it. What that cannot check any more is checked here."""
        _check(record)
        match record:
            case ItemRecord():
                sealed = [self._seal_revision(namespace, record.key, each, draws) for each in record.revisions]
                return replace(record, key=self.hide("key", namespace, record.key), revisions=sealed)
            case ConversationRecord():
                return replace(record, name=self.hide("conversation", namespace, record.name))
            case MessageRecord():
                was = record.message
                given = None if was.id.startswith("#") else was.id
                new = NewMessage(was.raw, given, was.role)
                new = self.seal_message(namespace, was.conversation, new, draws)
                name = self.hide("conversation", namespace, was.conversation)
                return MessageRecord(replace(was, raw=new.raw, id=new.id, conversation=name))
            case NamespaceRecord() | EndRecord():
                return record

    def _seal_revision(self, namespace: str, key: str, revision: Revision, draws: Draws) -> Revision:
        if revision.deleted:
            return revision
        raw = self.seal_value(namespace, key, revision.raw, draws)
        return replace(revision, raw=raw, meta=unindexed(revision.meta))

    def open_record(self, namespace: str, record: DumpRecord) -> DumpRecord:
        """A record as callers know it, of a dump of this namespace."""
        match record:
            case ItemRecord():
                key = self.show("key", namespace, record.key)
                opened = [self.open_revision(namespace, key, each) for each in record.revisions]
                return replace(record, key=key, revisions=opened)
            case ConversationRecord():
                return replace(record, name=self.show("conversation", namespace, record.name))
            case MessageRecord():
                conversation = self.show("conversation", namespace, record.message.conversation)
                return MessageRecord(self.open_message(namespace, conversation, record.message))
            case NamespaceRecord() | EndRecord():
                return record

    def open_exported(self, namespace: str, record: DumpRecord) -> DumpRecord:
        """A record of an export of this namespace, encrypted or not, with hidden names or not."""
        match record:
            case ItemRecord():
                key = self._name("key", namespace, record.key)
                opened = [
                    self.open_revision(namespace, key, each) if is_envelope(each.raw) else each
                    for each in record.revisions
                ]
                return replace(record, key=key, revisions=opened)
            case ConversationRecord():
                return replace(record, name=self._name("conversation", namespace, record.name))
            case MessageRecord():
                return MessageRecord(self._open_exported_message(namespace, record.message))
            case NamespaceRecord() | EndRecord():
                return record

    def _open_exported_message(self, namespace: str, message: Message) -> Message:
        conversation = self._name("conversation", namespace, message.conversation)
        if not is_envelope(message.raw):
            return message
        id_ = self._name(_ids_of(conversation), namespace, message.id)
        return self._opened(namespace, conversation, message, id_)

    def _name(self, kind: str, namespace: str, name: str) -> str:
        """A name of an export, shown if it is hidden."""
        if not is_hidden_name(name):
            return name
        shown = self.keyring.oldest.unhide(name, f"{kind}\0{namespace}")
        if shown is None:
            raise InvalidInput(self._why_not_shown(kind, namespace, name))
        return shown

    # ── rotation ──

    def is_old(self, raw: Raw) -> bool:
        """Whether the envelope was made with another key than the newest."""
        return id_of_key(bytes(raw)) != self.keyring.newest.id.encode()


def unindexed(meta: Meta) -> Meta:
    """What stands beside a value, without the names of fields that a search should look at: there is none."""
    return replace(meta, index=None) if getattr(meta, "index", None) is not None else meta


def _ids_of(conversation: str) -> str:
    """The kind of name that the message ids of a conversation are."""
    return f"message id\0{conversation}"


def _check(record: DumpRecord) -> None:
    match record:
        case ItemRecord():
            check_name(record.key, "key")
        case ConversationRecord():
            check_name(record.name, "conversation")
        case MessageRecord():
            check_name(record.message.conversation, "conversation")
        case NamespaceRecord() | EndRecord():
            pass
    for raw in values_of(record):
        check_text(raw, _ANY_SIZE)


def values_of(record: DumpRecord) -> Iterator[Raw]:
    """Every value and message in a record."""
    if isinstance(record, ItemRecord):
        yield from (each.raw for each in record.revisions if not each.deleted)
    elif isinstance(record, MessageRecord):
        yield record.message.raw


def _text(raw: Raw) -> bytes:
    """The JSON text of a value that is to be sealed."""
    if is_envelope(raw):
        raise InvalidInput("the value is encrypted already: an envelope of botwire cannot be a value itself")
    return bytes(raw)
