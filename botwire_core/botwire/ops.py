"""The ops: everything that a store can be asked, and everything that it answers.

A store does one thing: `execute(ops) -> results`. This module is the whole vocabulary. One declaration
is the type, the validator, the wire format and the JSON Schema of an op. Each op states its

* `access`: what a key must allow for it (`read`, `write` or `admin`),
* `reach`: one namespace, or with `subtree=True` everything at and below it (`""` is the whole store),
* `result`: the type of its answer.

Times are integers, microseconds since 1970 (UTC); results offer them as aware datetimes too. Values
travel as `msgspec.Raw`: JSON text that is encoded once, where it is made, and decoded once, where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Raw, Struct

from . import names, values
from .errors import InvalidInput

Access = Literal["read", "write", "admin"]
Reach = Literal["namespace", "subtree"]
Kind = Literal["item", "message"]
Fields = bool | tuple[str, ...] | None
"""What of a value can be found by search: all of it, nothing (`False`), these fields, or what the policy says."""

MAX_PAGE = 10_000
MAX_OPS = 10_000
MICROSECONDS = 1_000_000
MAX_SECONDS = 100 * 366 * 86_400  # a century: longer spans are mistakes of unit
MAX_HITS = 1_000
MAX_AROUND = 50
MAX_FIELDS = 32
MAX_DIMENSION = 16_384

END_OF_TIME = 253_402_300_800 * MICROSECONDS  # the year 10000

ON_THE_WIRE = {"raw": "value"}
"""`raw` is a value's JSON text to who has it in Python; in JSON it is simply the value."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(microseconds: int) -> datetime:
    """Microseconds since 1970 as an aware datetime (UTC)."""
    return _EPOCH + timedelta(microseconds=microseconds)


def microseconds(when: datetime) -> int:
    """An aware datetime as microseconds since 1970. Raises `InvalidInput` for a naive one."""
    if when.tzinfo is None:
        raise InvalidInput(f"{when!r} has no time zone: pass an aware datetime, such as datetime.now(timezone.utc)")
    return (when - _EPOCH) // timedelta(microseconds=1)


# ── Policy: what a store or a namespace keeps, and how much ─────────────────────────────────────────


class Policy(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is kept, and how much. `None` means: as the store has it; `DEFAULTS` is what a new store has.

    `0` turns `history` off; for the limits from `messages` on, `0` means no limit.
    """

    history: int | None = None
    """How many past values of a key are kept."""
    max_age: float | None = None
    """How many seconds a past value stays readable."""
    feed: int | None = None
    """How many changes the feed keeps."""
    feed_max_age: float | None = None
    """How many seconds a change stays in the feed."""
    max_value_bytes: int | None = None
    """The largest value or message, in bytes of JSON."""
    messages: int | None = None
    """How many messages a conversation keeps."""
    messages_max_age: float | None = None
    """How many seconds a message is kept."""
    max_items: int | None = None
    """How many items a namespace holds."""
    max_bytes: int | None = None
    """How many bytes a namespace holds, past values included."""
    writes_per_day: int | None = None
    """How many changes a namespace takes in a day (UTC)."""
    index: bool | None = None
    """Whether search finds what is written without saying whether it should be found."""

    def __post_init__(self) -> None:
        if self.index is not None and not isinstance(self.index, bool):
            raise InvalidInput(f"index={self.index!r} must be True or False: fields are named where a value is set")
        for field, value in msgspec.structs.asdict(self).items():
            kinds = int | float if field.endswith("_age") else int
            if value is None or field == "index":
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < 2**53:
                what = "number of seconds" if field.endswith("_age") else "whole number"
                raise InvalidInput(f"{field}={value!r} must be a {what}, zero or more")
        if self.max_value_bytes is not None and self.max_value_bytes < 1:
            raise InvalidInput("max_value_bytes must be at least 1")
        if self.history is not None and self.history > 10_000:
            raise InvalidInput(f"history={self.history} is over the limit of 10,000 past values a key")

    def over(self, base: Policy) -> Policy:
        """This policy, with what it leaves open taken from `base`."""
        own = {field: value for field, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(base, **own)


DEFAULTS = Policy(
    history=16,
    max_age=30 * 86_400.0,
    feed=100_000,
    feed_max_age=30 * 86_400.0,
    max_value_bytes=values.MAX_VALUE_BYTES,
    messages=0,
    messages_max_age=0.0,
    max_items=0,
    max_bytes=0,
    writes_per_day=0,
    index=True,
)

# ── What is stored ──────────────────────────────────────────────────────────────────────────────────


class Meta(Struct, frozen=True, omit_defaults=True):
    """What stands beside a value: tags, who wrote it, for an undo the version that it restored, and what is indexed."""

    tags: tuple[str, ...] = ()
    author: str | None = None
    restored: int | None = None
    index: Fields = None


NO_META = Meta()
UNSEARCHED = Meta(index=False)


class _Valued(Struct, frozen=True, rename=ON_THE_WIRE):
    """The part that items, revisions and messages share: a JSON value, decoded when asked for."""

    raw: Raw

    @property
    def value(self) -> Any:
        """The stored value, decoded afresh at each access."""
        return values.decode(self.raw)

    def value_as(self, type_: Any) -> Any:
        """The stored value as a dataclass, pydantic model or any type msgspec knows."""
        return values.decode_as(self.raw, type_)

    def _short(self) -> str:
        try:
            return _short(self.value)
        except InvalidInput:  # a `repr` is no place to ask for a key
            return "encrypted"


class Item(_Valued, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """A key and its value in a namespace. Unpacks as `key, value`, so that `dict(memory.items())` works."""

    key: str
    version: int
    created: int
    updated: int
    expires: int | None = None
    meta: Meta = NO_META
    namespace: str = ""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, sorted."""
        return self.meta.tags

    @property
    def author(self) -> str | None:
        """Who wrote it."""
        return self.meta.author

    @property
    def created_at(self) -> datetime:
        """When the key was first set."""
        return moment(self.created)

    @property
    def updated_at(self) -> datetime:
        """When the value was last set."""
        return moment(self.updated)

    @property
    def expires_at(self) -> datetime | None:
        """When the value stops being readable, if ever."""
        return None if self.expires is None else moment(self.expires)

    def __iter__(self) -> Iterator[Any]:
        yield self.key
        yield self.value

    def __repr__(self) -> str:
        return f"Item({self.key!r}, {self._short()}, version={self.version})"


class Revision(_Valued, frozen=True, omit_defaults=True):
    """What an item was, from `version` until the next one."""

    version: int
    updated: int
    expires: int | None = None
    meta: Meta = NO_META
    deleted: bool = False

    @property
    def at(self) -> datetime:
        """When it became so."""
        return moment(self.updated)

    def __repr__(self) -> str:
        what = "deleted" if self.deleted else self._short()
        return f"Revision({what}, version={self.version}, at={self.at:%Y-%m-%d %H:%M:%S})"


class Message(_Valued, frozen=True, omit_defaults=True):
    """One message of a conversation. `version` orders it; `id` names it."""

    id: str
    version: int
    created: int
    role: str | None = None
    author: str | None = None
    edited: int | None = None
    redacted: bool = False
    conversation: str = ""
    namespace: str = ""
    index: bool = True
    """Whether search may find it."""

    @property
    def at(self) -> datetime:
        """When it was said: the time given with it, else that of the append."""
        return moment(self.created)

    def __repr__(self) -> str:
        return f"Message({self.id!r}, {self.role or 'no role'}, {self._short()})"


class Change(Struct, frozen=True, omit_defaults=True):
    """One entry of the feed: what changed, how, when and at which version; never the value."""

    kind: Literal["set", "deleted", "touched", "expired", "appended", "edited", "trimmed", "cleared"]
    version: int
    updated: int
    cursor: str
    """Where to go on after this change: `memory.watch(after=change.cursor)`."""
    key: str | None = None
    conversation: str | None = None
    namespace: str = ""

    @property
    def at(self) -> datetime:
        """When it happened."""
        return moment(self.updated)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


# ── Results ─────────────────────────────────────────────────────────────────────────────────────────


class Stamp(Struct, frozen=True, omit_defaults=True):
    """What a write leaves: the new version, and the times that hold now."""

    version: int
    created: int
    updated: int
    expires: int | None = None


class Removed(Struct, frozen=True, omit_defaults=True):
    """How much was removed; `version` is 0 when there was nothing."""

    version: int = 0
    items: int = 0
    messages: int = 0


class Erased(Struct, frozen=True, omit_defaults=True):
    """What was erased.

    `pending`: gone for every reader of the store, but a reader or another process still holds old pages of the
    file; erase again later to have them overwritten.
    """

    items: int = 0
    messages: int = 0
    namespaces: int = 0
    pending: bool = False


class ItemPage(Struct, frozen=True, omit_defaults=True):
    """A page of items. `cursor` asks for the next one; `None`: this was the last."""

    items: list[Item]
    cursor: str | None = None


class MessagePage(Struct, frozen=True, omit_defaults=True):
    """A page of messages, in the order asked for."""

    messages: list[Message]
    more: bool = False


class ConversationInfo(Struct, frozen=True, omit_defaults=True):
    """A conversation and how much it holds."""

    name: str
    messages: int
    bytes: int
    version: int
    created: int
    updated: int
    namespace: str = ""

    @property
    def created_at(self) -> datetime:
        """When its first message was appended."""
        return moment(self.created)

    @property
    def updated_at(self) -> datetime:
        """When it last changed."""
        return moment(self.updated)


class ConversationPage(Struct, frozen=True, omit_defaults=True):
    """A page of conversations, by name."""

    conversations: list[ConversationInfo]
    cursor: str | None = None


class Hit(Struct, frozen=True, omit_defaults=True):
    """What a search has found: an item or a message, and how well it fits (higher is better)."""

    score: float
    item: Item | None = None
    message: Message | None = None
    terms: tuple[str, ...] = ()
    """What of the query is in it, as the index knows it: words without their endings."""
    before: tuple[Message, ...] = ()
    """The messages right before a message, oldest first, if asked for with `around`."""
    after: tuple[Message, ...] = ()
    """… and right after it."""
    parts: dict[str, float] | None = None
    """How the score came about, if asked for with `explain`."""

    @property
    def found(self) -> Item | Message:
        """The item or the message."""
        found = self.message if self.item is None else self.item
        assert found is not None  # a hit has one of them
        return found

    @property
    def value(self) -> Any:
        """Its value, decoded afresh at each access."""
        return self.found.value

    @property
    def key(self) -> str | None:
        """The key of an item."""
        return None if self.item is None else self.item.key

    @property
    def conversation(self) -> str | None:
        """The conversation of a message."""
        return None if self.message is None else self.message.conversation

    @property
    def namespace(self) -> str:
        """Where it was found."""
        return self.found.namespace

    @property
    def text(self) -> str:
        """What it says, in words."""
        from .search import texts  # only where text is shown

        if self.message is not None:
            return texts.of_message(self.message.value)
        return texts.of_item(self.found.value, self.item.meta.index if self.item else None)

    @property
    def snippet(self) -> str:
        """The part of the text that matched, with the words that did between « and »."""
        from .search import snippet  # only where text is shown

        return snippet(self.text, self.terms)

    def __repr__(self) -> str:
        return f"Hit({self.score:.3g}, {self.found!r})"


class HitPage(Struct, frozen=True, omit_defaults=True):
    """What a search has found, best first; it ends early when its values take 16 MiB.

    `unindexed`: so many entries are not searchable yet.
    """

    hits: list[Hit]
    unindexed: int = 0


class Indexed(Struct, frozen=True, omit_defaults=True):
    """How much an `Index` has taken in, and how much is left to do."""

    done: int = 0
    left: int = 0


class Text(Struct, frozen=True):
    """A text that has no vector yet, and what it is called in the index."""

    document: int
    digest: int
    text: str


class Texts(Struct, frozen=True, omit_defaults=True):
    """Texts to be embedded. `left`: how many lack a vector, these included; `unindexed`: not in the index yet."""

    texts: list[Text]
    query: str = ""
    left: int = 0
    unindexed: int = 0


class Vector(Struct, frozen=True, omit_defaults=True):
    """The embedding of a text: float32 numbers, little-endian, of length 1. Empty: there is nothing to embed in it."""

    document: int
    digest: int
    vector: bytes = b""


class Embedded(Struct, frozen=True, omit_defaults=True):
    """How many vectors an `Embed` has stored, and how many texts are still without one."""

    stored: int = 0
    left: int = 0


class ChangePage(Struct, frozen=True, omit_defaults=True):
    """A page of the feed, oldest first. `cursor` goes on behind it, even when the page is empty."""

    changes: list[Change]
    cursor: str
    more: bool = False


class NamespaceInfo(Struct, frozen=True, omit_defaults=True):
    """A namespace and how much it holds. One that was never written to has version 0."""

    name: str
    version: int = 0
    items: int = 0
    messages: int = 0
    conversations: int = 0
    bytes: int = 0
    writes_today: int = 0
    created: int = 0
    updated: int = 0
    policy: Policy = Policy()
    """What holds here, the store's defaults included."""
    unindexed: int = 0
    """Changes and older entries that the next search has to take in first; nothing is missing from its answer."""
    unembedded: int = 0
    """Indexed texts that have no vector yet, if an embedder is in use; search finds them by their words."""


class NamespacePage(Struct, frozen=True, omit_defaults=True):
    """A page of namespaces, by name."""

    namespaces: list[NamespaceInfo]
    cursor: str | None = None


# ── What is moved: the records of Dump and Load ─────────────────────────────────────────────────────


class NamespaceRecord(Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="namespace"):
    """The first record of a namespace."""

    version: int
    created: int
    updated: int
    history_floor: tuple[int, int] = (0, 0)
    policy: Policy = Policy()


class ItemRecord(Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="item"):
    """An item with its past, newest first; `deleted` when the newest revision is a deletion."""

    key: str
    created: int
    revisions: list[Revision]
    complete: bool = True
    """Whether the past reaches back to the key's beginning."""
    since: int = 0
    """The version since which the value is what it is, if a touch has given it a newer one."""


class ConversationRecord(Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="conversation"):
    """A conversation; its messages follow."""

    name: str
    version: int
    created: int
    updated: int


class MessageRecord(Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="message"):
    """A message."""

    message: Message


class EndRecord(Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="end"):
    """The last record: what came before it, counted, so that a cut-off copy is noticed."""

    version: int
    items: int
    messages: int


DumpRecord = NamespaceRecord | ItemRecord | ConversationRecord | MessageRecord | EndRecord


class DumpPage(Struct, frozen=True, omit_defaults=True):
    """Some records of a namespace. `cursor` asks for the next; `None`: this was the last."""

    records: list[DumpRecord]
    cursor: str | None = None


class Loaded(Struct, frozen=True, omit_defaults=True):
    """How much a `Load` took in."""

    items: int = 0
    messages: int = 0


# ── The ops ─────────────────────────────────────────────────────────────────────────────────────────


def _tag(name: str) -> str:
    return name.lower()


class Op(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="op", tag=_tag):
    """What every op has: a namespace to act in."""

    access: ClassVar[Access] = "read"
    result: ClassVar[Any] = None

    namespace: str

    @property
    def reach(self) -> Reach:
        """One namespace, or everything at and below it."""
        return "subtree" if getattr(self, "subtree", False) else "namespace"

    def __post_init__(self) -> None:
        names.check_namespace(self.namespace, root=self.reach == "subtree")
        self.check()

    def check(self) -> None:
        """Raise `InvalidInput` if a field of this op cannot be used."""


class _Lookup(Op, frozen=True):
    """Reading one key.

    It does not check its names when it is made: a wrong name finds nothing, and a store calls `check_names`
    before it says so. That keeps the most frequent ops the cheapest.
    """

    key: str

    def __post_init__(self) -> None:
        return None

    def check_names(self) -> None:
        """Raise `InvalidInput` if a name is wrong."""
        names.check_namespace(self.namespace)
        names.check_name(self.key, "key")


class Value(_Lookup, frozen=True):
    """Read the value of a key, and nothing else. The answer is `None` when there is none (a stored null is `Raw`)."""

    result: ClassVar[Any] = Raw | None


class Get(_Lookup, frozen=True):
    """Read one item, now or `as_of` a version or a time. The answer is `None` when there is none."""

    result: ClassVar[Any] = Item | None
    as_of: int | None = None
    as_of_time: int | None = None


class Scan(Op, frozen=True):
    """List items, by key or by time of change. `where` and `tags` filter; see `botwire.where`."""

    result: ClassVar[Any] = ItemPage
    prefix: str = ""
    where: dict[str, Any] | None = None
    tags: tuple[str, ...] = ()
    author: str | None = None
    since: int | None = None
    """Only what changed at this time (microseconds) or later."""
    order: Literal["key", "updated"] = "key"
    reverse: bool = False
    values: bool = True
    """False leaves the values out (each is `null`): cheaper for listing keys."""
    subtree: bool = False
    limit: int = 100
    cursor: str | None = None

    def check(self) -> None:
        names.check_prefix(self.prefix, "prefix")
        _check_limit(self.limit)


class History(Op, frozen=True):
    """The revisions of a key, newest first, the current one included."""

    result: ClassVar[Any] = list[Revision]
    key: str
    limit: int = 100

    def check(self) -> None:
        names.check_name(self.key, "key")
        _check_limit(self.limit)


class Messages(Op, frozen=True):
    """Read messages of a conversation, oldest first, or newest first with `reverse`.

    `after` and `before` are versions, exclusive; `roles` and `ids` select.
    """

    result: ClassVar[Any] = MessagePage
    conversation: str
    after: int | None = None
    before: int | None = None
    roles: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    reverse: bool = False
    limit: int = 100

    def check(self) -> None:
        names.check_name(self.conversation, "conversation")
        _check_limit(self.limit)


class Conversations(Op, frozen=True):
    """List conversations by name."""

    result: ClassVar[Any] = ConversationPage
    prefix: str = ""
    subtree: bool = False
    limit: int = 100
    cursor: str | None = None

    def check(self) -> None:
        names.check_prefix(self.prefix, "prefix")
        _check_limit(self.limit)


class Changes(Op, frozen=True):
    """Read the feed behind a cursor. `after=None` answers with the cursor of now, `""` starts where the feed does."""

    result: ClassVar[Any] = ChangePage
    after: str | None = None
    subtree: bool = False
    limit: int = 100

    def check(self) -> None:
        _check_limit(self.limit)


class Describe(Op, frozen=True):
    """How much a namespace holds, and its policy."""

    result: ClassVar[Any] = NamespaceInfo

    def __post_init__(self) -> None:
        names.check_namespace(self.namespace, root=True)


class Namespaces(Op, frozen=True):
    """List the namespaces at and below this one, by name."""

    result: ClassVar[Any] = NamespacePage
    subtree: bool = True
    limit: int = 100
    cursor: str | None = None

    def check(self) -> None:
        _check_limit(self.limit)


class Dump(Op, frozen=True):
    """Read everything of a namespace as records, page by page: what `Load` takes.

    `stored`: as the store holds it. A wrapper that encrypts then leaves it encrypted; to a store it is all the same.
    """

    result: ClassVar[Any] = DumpPage
    limit: int = 500
    cursor: str | None = None
    stored: bool = False

    def check(self) -> None:
        _check_limit(self.limit)


class Search(Op, frozen=True):
    """Find items and messages by what they say.

    `where` and `tags` filter items and messages by their values; see `botwire.where`. Of a long query its beginning
    counts.
    """

    result: ClassVar[Any] = HitPage
    query: str
    limit: int = 10
    where: dict[str, Any] | None = None
    kinds: tuple[Kind, ...] | None = None
    conversation: str | None = None
    tags: tuple[str, ...] = ()
    author: str | None = None
    since: int | None = None
    """Only what was said or set at this time (microseconds) or later."""
    until: int | None = None
    """Only what was said or set before this time."""
    around: int = 0
    """How many messages before and after each message come with it."""
    explain: bool = False
    subtree: bool = False
    vector: bytes | None = None
    """The query's embedding, packed as in `botwire.search.vectors`, by the embedder `model`."""
    model: str | None = None

    def check(self) -> None:
        if (self.vector is None) != (self.model is None):
            raise InvalidInput("a query's vector comes with the name of its model")
        if self.vector is not None:
            _check_vector(self.vector)
        if not isinstance(self.query, str):
            raise InvalidInput(f"a query is a str, not {type(self.query).__name__}: {self.query!r}")
        if not 0 <= self.limit <= MAX_HITS:
            raise InvalidInput(f"limit={self.limit!r} must lie between 0 and {MAX_HITS:,}")
        if not 0 <= self.around <= MAX_AROUND:
            raise InvalidInput(f"around={self.around!r} must lie between 0 and {MAX_AROUND}")
        if self.conversation is not None:
            names.check_name(self.conversation, "conversation")
        if self.author is not None:
            names.check_name(self.author, "author")
        for kind in self.kinds or ():
            if kind not in ("item", "message"):
                raise InvalidInput(f"kinds={self.kinds!r}: there are 'item' and 'message'")


class Unembedded(Op, frozen=True):
    """What an embedder still has to be given: texts without a vector, at most `limit`, and the query as it takes it."""

    result: ClassVar[Any] = Texts
    model: str
    query: str = ""
    subtree: bool = False
    limit: int = 100

    def check(self) -> None:
        names.check_name(self.model, "model")
        _check_limit(self.limit)


class Embed(Op, frozen=True):
    """Store the vectors of texts that `Unembedded` has answered. `replace` lets go of those of another model first."""

    access: ClassVar[Access] = "write"
    result: ClassVar[Any] = Embedded
    model: str
    dimension: int
    vectors: list[Vector]
    replace: bool = False
    subtree: bool = False

    def check(self) -> None:
        names.check_name(self.model, "model")
        if not 0 < self.dimension <= MAX_DIMENSION:
            raise InvalidInput(f"a vector has from 1 to {MAX_DIMENSION:,} numbers, not {self.dimension}")
        if len(self.vectors) > MAX_PAGE:
            raise InvalidInput(f"{len(self.vectors):,} vectors in one call: the limit is {MAX_PAGE:,}")
        for each in self.vectors:
            if each.vector and len(each.vector) != 4 * self.dimension:
                raise InvalidInput(f"a vector of {len(each.vector)} bytes is none of {self.dimension} numbers")


class Index(Op, frozen=True):
    """Take in what search has not indexed yet, at most `limit` entries; `afresh` forgets the index first.

    Nothing needs it, for a search takes in what it needs. It is there for large files from before there was search.
    `model`: an embedder of this name is in use from now on; what it has not embedded is counted.
    """

    access: ClassVar[Access] = "write"
    result: ClassVar[Any] = Indexed
    subtree: bool = False
    afresh: bool = False
    limit: int = 1_000
    model: str | None = None

    def check(self) -> None:
        if self.model is not None:
            names.check_name(self.model, "model")
        _check_limit(self.limit)


class Put(Op, frozen=True, rename=ON_THE_WIRE):
    """Set a value. `if_version=n`: only if that is the current version; 0: only if there is none.

    `history=False` keeps nothing of what the key held before. It expires `ttl` seconds from now, or at the time
    `expires`. What search finds of it is in `meta.index`.
    """

    access: ClassVar[Access] = "write"
    result: ClassVar[Any] = Stamp
    key: str
    raw: Raw
    ttl: float | None = None
    if_version: int | None = None
    meta: Meta = NO_META
    history: bool = True
    expires: int | None = None

    def __post_init__(self) -> None:  # one call fewer than `check`: this is a hot path
        names.check_namespace(self.namespace)
        names.check_name(self.key, "key")
        if self.ttl is not None:
            _check_ttl(self.ttl)
            if self.expires is not None:
                raise InvalidInput("give a ttl or a time of expiry, not both")
        if self.expires is not None and not 0 <= self.expires < END_OF_TIME:
            raise InvalidInput(f"expires={self.expires} must be microseconds between 1970 and 9999")
        if self.if_version is not None:
            _check_version(self.if_version)
        if self.meta is not NO_META and self.meta is not UNSEARCHED:
            names.check_tags(self.meta.tags)
            if self.meta.author is not None:
                names.check_name(self.meta.author, "author")
            check_fields(self.meta.index)


class Delete(Op, frozen=True):
    """Delete a key. The answer is `None` when it was not there."""

    access: ClassVar[Access] = "write"
    result: ClassVar[Any] = Stamp | None
    key: str
    if_version: int | None = None
    history: bool = True

    def check(self) -> None:
        names.check_name(self.key, "key")
        _check_version(self.if_version)


class Touch(Op, frozen=True):
    """Set when a key expires, `ttl` seconds from now, or never (`None`). The value stays as it is."""

    access: ClassVar[Access] = "write"
    result: ClassVar[Any] = Stamp | None
    key: str
    ttl: float | None = None
    if_version: int | None = None

    def check(self) -> None:
        names.check_name(self.key, "key")
        _check_ttl(self.ttl)
        _check_version(self.if_version)


class NewMessage(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename=ON_THE_WIRE):
    """A message to append. One with the `id` of a message that is there already is not added again."""

    raw: Raw
    id: str | None = None
    role: str | None = None
    author: str | None = None
    at: int | None = None
    index: bool = True

    def __post_init__(self) -> None:
        for field in ("id", "role", "author"):
            name = getattr(self, field)
            if name is not None:
                names.check_name(name, f"message {field}")
        if self.id is not None and self.id.startswith("#"):
            raise InvalidInput(f"message id {self.id!r} begins with '#', which marks ids that botwire gives")
        if self.at is not None and not 0 <= self.at < END_OF_TIME:
            raise InvalidInput(f"the time of a message must lie between 1970 and 9999: {self.at} microseconds")


class Append(Op, frozen=True):
    """Append messages to a conversation; it comes to be with its first one.

    `if_version`: only if that is the version of the conversation's last message (0: only if it is new).
    """

    access: ClassVar[Access] = "write"
    result: ClassVar[Any] = list[Stamp]
    conversation: str
    messages: list[NewMessage]
    if_version: int | None = None

    def check(self) -> None:
        names.check_name(self.conversation, "conversation")
        _check_version(self.if_version)
        if len(self.messages) > MAX_PAGE:
            raise InvalidInput(f"{len(self.messages):,} messages in one append: the limit is {MAX_PAGE:,}")


class Edit(Op, frozen=True, rename=ON_THE_WIRE):
    """Replace one message where it stands; what it was is not kept. `redacted` marks it as blotted out.

    `if_text`: only if that is its JSON text now, byte for byte; else `Conflict`.
    """

    access: ClassVar[Access] = "write"
    result: ClassVar[Any] = Stamp | None
    conversation: str
    id: str
    raw: Raw
    role: str | None = None
    author: str | None = None
    redacted: bool = False
    if_text: str | None = None

    def check(self) -> None:
        if self.if_text is not None and not values.is_text(self.if_text):
            raise InvalidInput("if_text must be the JSON text of a message")
        names.check_name(self.conversation, "conversation")
        names.check_name(self.id, "message id")


class Trim(Op, frozen=True):
    """Remove messages: all but the last `keep`, those said before the time `older_than`, or those with these `ids`."""

    access: ClassVar[Access] = "write"
    result: ClassVar[Any] = Removed
    conversation: str
    keep: int | None = None
    older_than: int | None = None
    ids: tuple[str, ...] | None = None

    def check(self) -> None:
        names.check_name(self.conversation, "conversation")
        if sum(way is not None for way in (self.keep, self.older_than, self.ids)) != 1:
            raise InvalidInput("trim takes exactly one of keep, older_than and ids")
        if self.keep is not None and not 0 <= self.keep < 2**53:
            raise InvalidInput(f"keep={self.keep} must be a number of messages, zero or more")
        if self.older_than is not None and not 0 <= self.older_than < END_OF_TIME:
            raise InvalidInput(f"older_than={self.older_than} must be microseconds between 1970 and 9999")


class Clear(Op, frozen=True):
    """Delete all items and conversations, or with `conversation` just that one. The past of items stays for undo."""

    access: ClassVar[Access] = "write"
    result: ClassVar[Any] = Removed
    conversation: str | None = None

    def check(self) -> None:
        if self.conversation is not None:
            names.check_name(self.conversation, "conversation")


class Erase(Op, frozen=True):
    """Destroy a namespace, a subtree, one key or one conversation, with all their past and their traces."""

    access: ClassVar[Access] = "admin"
    result: ClassVar[Any] = Erased
    key: str | None = None
    conversation: str | None = None
    subtree: bool = False

    def check(self) -> None:
        if self.key is not None:
            names.check_name(self.key, "key")
        if self.conversation is not None:
            names.check_name(self.conversation, "conversation")
        if (self.key is not None) + (self.conversation is not None) + self.subtree > 1:
            raise InvalidInput("erase takes at most one of key, conversation and subtree")


class Configure(Op, frozen=True):
    """Set the policy of a namespace, or with the namespace `""` the store's. `None` leaves a field as it is."""

    access: ClassVar[Access] = "admin"
    result: ClassVar[Any] = NamespaceInfo
    policy: Policy

    def __post_init__(self) -> None:
        names.check_namespace(self.namespace, root=True)


class Load(Op, frozen=True):
    """Take in records of `Dump`.

    The first must be a `NamespaceRecord` and find the namespace empty; until the `EndRecord` has come, other
    writes to the namespace are refused. `origin`: the namespace that the records are of, for a wrapper that has to
    decrypt them; to a store it is all the same.
    """

    access: ClassVar[Access] = "admin"
    result: ClassVar[Any] = Loaded
    records: list[DumpRecord]
    origin: str | None = None


AnyOp = (
    Value | Get | Scan | History | Messages | Conversations | Changes | Describe | Namespaces | Dump
    | Search | Unembedded
    | Put | Delete | Touch | Append | Edit | Trim | Clear | Erase | Configure | Load | Index | Embed
)  # fmt: skip


def _check_limit(limit: int) -> None:
    if not 0 <= limit <= MAX_PAGE:
        raise InvalidInput(f"limit={limit!r} must lie between 0 and {MAX_PAGE:,}: ask for the next page by cursor")


def _check_ttl(ttl: float | None) -> None:
    if ttl is None:
        return
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise InvalidInput(f"ttl must be a number of seconds, not {type(ttl).__name__}: {ttl!r}")
    if not 0 < ttl <= MAX_SECONDS:
        raise InvalidInput(f"ttl={ttl!r} must be more than 0 seconds and at most a century; leave it out for no expiry")


def _check_version(version: int | None) -> None:
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or not 0 <= version < 2**63):
        raise InvalidInput(f"if_version={version!r} must be a version, an integer from 0 up")


def _check_vector(vector: bytes) -> None:
    if not vector or len(vector) % 4 or len(vector) > 4 * MAX_DIMENSION:
        raise InvalidInput(f"a vector of {len(vector)} bytes is none of float32 numbers")


def check_fields(index: Fields) -> None:
    """Raise `InvalidInput` if this cannot say what is indexed."""
    if index is None or isinstance(index, bool):
        return
    if not isinstance(index, tuple) or len(index) > MAX_FIELDS:
        raise InvalidInput(f"index={index!r} must be True, False, or at most {MAX_FIELDS} names of fields")
    for field in index:
        names.check_name(field, "field to index")
