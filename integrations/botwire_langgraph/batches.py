"""What a batch of LangGraph's store ops is to botwire: reads that see one moment, then writes, all or none.

`Plan` checks everything before anything is done. Its flows yield ops and are sent their results, as in `botwire.flows`,
so `batch` and `abatch` share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langgraph.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    validate_op_namespace,
)

from botwire import flows, ops, values
from botwire.errors import Conflict, InvalidInput, TooLarge
from botwire.flows import Flow

from . import filters
from .naming import Names
from .together import together

PAGE = 500
TTL_TAG = "ttl-minutes:"  # how long an item lives after it was last read: its expiry alone does not tell
SECONDS = 60  # in a minute, LangGraph's unit
OPERATORS = frozenset("[]{}*")  # of paths into lists, which botwire's index does not know


def alone(names: Names, author: str | None, batch: Sequence[Op]) -> ops.Get | ops.Put | ops.Delete | None:
    """What a batch of a single get or put is to botwire: the most frequent ones, with no plan in their way."""
    if len(batch) == 1:
        op = batch[0]
        if type(op) is GetOp:
            return ops.Get(names.of(op.namespace), op.key)
        if type(op) is PutOp:
            return written(names, author, op)
    return None


class Plan:
    """A batch, checked; nothing of it has been done."""

    def __init__(self, names: Names, author: str | None, batch: Iterable[Op]) -> None:
        self._names = names
        self._author = author
        self._count = 0
        self._reads: dict[int, Flow[Any]] = {}
        self._writes: dict[tuple[str, str], ops.Op] = {}
        self._touches: dict[tuple[str, str], ops.Touch] = {}
        self.searches: dict[int, ops.Search] = {}
        """The questions among the reads, by their places: an embedder may add their vectors."""
        for place, op in enumerate(batch):
            self._take(place, op)
            self._count += 1

    def _take(self, place: int, op: Op) -> None:
        if isinstance(op, GetOp):
            self._reads[place] = self._get(op, ops.Get(self._names.of(op.namespace), op.key))
        elif isinstance(op, PutOp):
            write = written(self._names, self._author, op)
            self._writes[write.namespace, op.key] = write  # the last one of a key wins
        elif isinstance(op, SearchOp):
            self._reads[place] = self._search(place, op)
        elif isinstance(op, ListNamespacesOp):
            self._reads[place] = self._list_namespaces(op)
        else:
            raise InvalidInput(f"Unknown operation type: {type(op).__name__}")

    def run(self) -> Flow[list[Result]]:
        """Do it."""
        results: list[Result] = [None] * self._count
        answers = yield from together(list(self._reads.values()))
        for place, answer in zip(self._reads, answers, strict=True):
            results[place] = answer
        if self._writes:
            yield list(self._writes.values())
        yield from refresh([touch for place, touch in self._touches.items() if place not in self._writes])
        return results

    # ── reads ──

    def _get(self, op: GetOp, asked: ops.Get) -> Flow[Item | None]:
        [item] = yield [asked]
        if item is None:
            return None
        self._note(item, op)
        return item_of(self._names, item)

    def _note(self, item: ops.Item, op: GetOp | SearchOp) -> None:
        """It was read: that may have it live on."""
        if op.refresh_ttl and item.expires is not None and (touch := touch_of(item)) is not None:
            self._touches[item.namespace, item.key] = touch

    def _found(self, item: ops.Item, op: SearchOp, score: float | None = None) -> SearchItem:
        self._note(item, op)
        labels = self._names.labels(item.namespace)
        return SearchItem(labels, item.key, value_of(item), item.created_at, item.updated_at, score)

    def _search(self, place: int, op: SearchOp) -> Flow[list[SearchItem]]:
        for name, number in (("limit", op.limit), ("offset", op.offset)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise InvalidInput(f"{name}={number!r} must be a whole number, zero or more")
        if op.filter is not None:
            filters.check(op.filter)
        namespace = self._names.of(op.namespace_prefix)
        where = filters.for_the_store(op.filter) if op.filter else None
        if op.query:
            self.searches[place] = question(namespace, op, where)
            return self._ranked(place, op)
        scan = ops.Scan(namespace, where=where, order="updated", reverse=True, subtree=True, limit=PAGE)
        return self._newest(op, scan)

    def _ranked(self, place: int, op: SearchOp) -> Flow[list[SearchItem]]:
        [page] = yield [self.searches[place]]
        hits = [(hit.item, hit.score) for hit in page.hits if passes(hit.item, op)]
        chosen = hits[op.offset : op.offset + op.limit]
        return [self._found(item, op, score) for item, score in chosen]

    def _newest(self, op: SearchOp, scan: ops.Scan) -> Flow[list[SearchItem]]:
        left, skip, size = op.limit, op.offset, op.limit + op.offset
        chosen: list[SearchItem] = []
        page: Any = None
        while left and (page is None or page.cursor is not None):
            cursor = None if page is None else page.cursor
            if skip and not op.filter:  # what is only skipped need not be read
                [page] = yield [replace(scan, cursor, min(skip, ops.MAX_PAGE), values=False)]
                skip -= len(page.items)
                continue
            [page] = yield [replace(scan, cursor, min(size if op.filter else left, PAGE))]
            size *= 2  # a filter that few pass looks at more and more at once
            items = [item for item in page.items if passes(item, op)]
            skip, items = max(0, skip - len(items)), items[skip : skip + left]
            chosen += [self._found(item, op) for item in items]
            left -= len(items)
        return chosen

    def _list_namespaces(self, op: ListNamespacesOp) -> Flow[list[tuple[str, ...]]]:
        validate_op_namespace(op)
        for condition in op.match_conditions or ():
            if condition.match_type not in ("prefix", "suffix"):
                raise InvalidInput(f"Unsupported match type: {condition.match_type!r}; there are prefix and suffix")
        if op.limit < 0 or op.offset < 0:
            raise InvalidInput(f"limit={op.limit} and offset={op.offset} must be zero or more")
        return self._namespaces(op, ops.Namespaces(self._names.of(_below(op)), limit=PAGE))

    def _namespaces(self, op: ListNamespacesOp, asked: ops.Namespaces | None) -> Flow[list[tuple[str, ...]]]:
        named: set[tuple[str, ...]] = set()
        while asked is not None:
            [page] = yield [asked]
            for each in page.namespaces:
                labels = self._names.labels(each.name)
                if each.items and all(fits(labels, condition) for condition in op.match_conditions or ()):
                    named.add(labels[: op.max_depth])
            asked = flows.next_page(asked, page, None)
        return sorted(named)[op.offset : op.offset + op.limit]


# ── writes ─────────────────────────────────────────────────────────────────────────────────────────────


def written(names: Names, author: str | None, op: PutOp) -> ops.Put | ops.Delete:
    """What a put is to botwire. Raises `InvalidInput` if its value, time to live or index cannot be kept."""
    namespace = names.of(op.namespace)
    if op.value is None:
        return ops.Delete(namespace, op.key)
    if not isinstance(op.value, Mapping) or not all(isinstance(name, str) for name in op.value):
        raise InvalidInput(
            f"the value of {op.key!r} in {op.namespace!r} must be a dict with str keys, not {op.value!r:.80}"
        )
    tags = () if op.ttl is None else (f"{TTL_TAG}{checked_ttl(op.ttl)!r}",)
    ttl = None if op.ttl is None else op.ttl * SECONDS
    index = fields_of(op.index)
    try:
        return flows.put_op(namespace, op.key, op.value, ttl, None, tags, author, index=index)
    except TooLarge:
        raise
    except InvalidInput as error:
        place = culprit(op.value)
        if place is None:
            raise
        raise InvalidInput(f"{op.key!r} in {op.namespace!r}, at value{place}: {error}") from error


# ── items ───────────────────────────────────────────────────────────────────────────────────────────


def item_of(names: Names, item: ops.Item) -> Item:
    """An item of botwire as one of LangGraph's."""
    return Item(
        value=value_of(item),
        key=item.key,
        namespace=names.labels(item.namespace),
        created_at=item.created_at,
        updated_at=item.updated_at,
    )


def value_of(item: ops.Item) -> dict[str, Any]:
    """The value. What somebody else has stored, and is no object, stands in one as `value`."""
    value = item.value
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {"value": value}


def touch_of(item: ops.Item) -> ops.Touch | None:
    """What has an item live on for as long as it was given; `None`, if LangGraph gave it no time to live."""
    for tag in item.tags:
        if tag.startswith(TTL_TAG):
            return ops.Touch(item.namespace, item.key, float(tag[len(TTL_TAG) :]) * SECONDS, item.version)
    return None


def refresh(touches: Sequence[ops.Touch]) -> Flow[None]:
    """Have items live on. One that somebody else has changed or read meanwhile is left as it is now."""
    for start in range(0, len(touches), PAGE):
        some = touches[start : start + PAGE]
        try:
            yield some
        except Conflict:
            for each in some if len(some) > 1 else ():
                yield from refresh([each])


def checked_ttl(ttl: float) -> float:
    """The time to live, in minutes. Raises `InvalidInput` for what is none."""
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not ttl > 0:
        raise InvalidInput(f"ttl={ttl!r} must be a number of minutes, more than 0; leave it out for no expiry")
    return float(ttl)


def culprit(value: Any) -> str | None:
    """Where in a value that is which cannot be stored: `['a'][2]`; `None` if it is the value as a whole."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(cast("list[Any]", value))
    for name, part in parts:
        try:
            values.encode(part)
        except TooLarge:
            continue
        except InvalidInput as error:
            if "contains itself" in str(error):  # there is no innermost place
                return f"[{name!r}]"
            return f"[{name!r}]{culprit(part) or ''}"
    return None


def fields_of(index: Any) -> bool | list[str] | None:
    """What LangGraph calls paths, as fields that botwire indexes: `meta.title`, `tags[*]`, or `$` for everything."""
    if index is None or index is False:
        return index
    if isinstance(index, str) or not isinstance(index, list | tuple):
        raise InvalidInput(f"index={index!r} must be False or a list of paths, such as ['title']")
    paths = [path.removesuffix("[*]") if isinstance(path, str) else path for path in cast("list[Any]", index)]
    for path in paths:
        if isinstance(path, str) and OPERATORS & set(path):
            raise InvalidInput(
                f"index path {path!r}: botwire indexes fields by name, such as 'context' or 'context.title', with all "
                "that is in them; parts of a list have no name"
            )
    return True if "$" in paths else paths


# ── searching ───────────────────────────────────────────────────────────────────────────────────────


def question(namespace: str, op: SearchOp, where: dict[str, Any] | None) -> ops.Search:
    """The search for a query."""
    wanted = op.offset + op.limit
    if wanted > ops.MAX_HITS:
        raise InvalidInput(f"a query finds the best {ops.MAX_HITS:,} items: offset + limit is {wanted:,}")
    # What is filtered here, and not by the store, takes more hits to choose from.
    limit = wanted if len(where or ()) == len(op.filter or ()) else ops.MAX_HITS
    return flows.search_op(namespace, op.query or "", limit, where=where, kinds="item", subtree=True)


def passes(item: ops.Item, op: SearchOp) -> bool:
    """Whether the filter lets an item through."""
    return not op.filter or filters.matches(value_of(item), op.filter)


def replace(scan: ops.Scan, cursor: str | None, limit: int, *, values: bool = True) -> ops.Scan:
    """The next page of a listing."""
    return ops.Scan(
        scan.namespace, where=scan.where, order=scan.order, reverse=scan.reverse, subtree=scan.subtree, values=values,
        limit=limit, cursor=cursor,
    )  # fmt: skip


def _below(op: ListNamespacesOp) -> tuple[str, ...]:
    """The namespace below which all those lie that are asked for."""
    prefixes = [each.path for each in op.match_conditions or () if each.match_type == "prefix"]
    return max((path for path in prefixes if "*" not in path), key=len, default=())


def fits(labels: tuple[str, ...], condition: MatchCondition) -> bool:
    """Whether a namespace begins or ends so; `*` is any label."""
    path = condition.path
    if len(labels) < len(path):
        return False
    part = labels[: len(path)] if condition.match_type == "prefix" else labels[len(labels) - len(path) :]
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))
