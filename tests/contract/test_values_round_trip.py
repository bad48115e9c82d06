"""Rule: values come back exactly as they were, by every road; what JSON cannot say is an error."""

import io
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from botwire import InvalidInput, Memory, TooLarge

EXACT = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "minus one": -1,
    "int as int": 5,
    "digits as text": "5",
    "64 bits": [2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**64)],
    "big integers": [10**30, -(10**30), 2**4000],
    "float that is whole": 1.0,
    "minus zero": -0.0,
    "floats": [0.1, 1e16, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, 0.30000000000000004, 123456789.123456789],
    "empty text": "",
    "text that looks like json": ['{"a":1}', "[1, 2]", "null", "true", '"quoted"', "1.0", "{", "["],
    "unicode": "äöü ß 漢字 🙂 \U0010ffff \u2028 \u2029 \ufeff e\u0301",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "backslashes and quotes": "\\ \\\" \\u0041 / \\/ '",
    "half a surrogate pair": "\ud800",
    "the other half": ["\udfff", "a\udc00b", {"\ud83d": "\ude42"}],
    "lists": [[], [[]], [1, [2, [3]]], [None, True, 0, 0.0, "", {}]],
    "dicts": [{}, {"": 0}, {"a": {"b": {}}}, {"a.b": 1, "$in": 2}],
    "order of keys": {"z": 1, "a": 2, "m": {"y": 1, "b": 2, "1": 3, "0": 4}},
    "false and zero": [False, 0, 0.0, True, 1, 1.0],
    "unusual keys": {" ": 1, "\n": 2, "🙂": 3, '"': 4, "\x00": 5},
}


def same(left, right):
    """Equal, of equal types, in equal order, to the sign of zero."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(same(one, other) for one, other in zip(left, right, strict=True))
    return left == right and (not isinstance(left, float) or math.copysign(1, left) == math.copysign(1, right))


def roads(memory, store, value):
    """The value, read in every way there is after it was written in every way."""
    memory.set("a", value)
    version = memory.item("a").version
    yield "get", memory.get("a")
    yield "getitem", memory["a"]
    yield "item", memory.item("a").value
    yield "get_many", memory.get_many(["a"])["a"]
    yield "items", next(memory.items(prefix="a")).value
    yield "values", next(memory.values())
    yield "history", memory.history("a")[0].value
    yield "what set answers", memory.set("a", value).value
    yield "as of", memory.get("a", as_of=version)
    memory.set("a", "something else")
    yield "past", memory.history("a")[1].value
    yield "undo", memory.undo("a").value
    yield "after undo", memory.get("a")
    memory.set_many({"b": value})
    yield "set_many", memory.get("b")
    with memory.batch() as batch:
        batch.set("c", value)
    yield "batch", memory.get("c")
    yield "setdefault", memory.setdefault("d", value)
    yield "after setdefault", memory.get("d")
    yield "update", memory.update("c", lambda old: old).value
    yield "pop", memory.pop("d")
    talk = memory.conversation("talk")
    message = talk.append(value)
    yield "append", message.value
    yield "messages", talk.messages()[-1].value
    yield "message", talk.message(message.id).value
    talk.append("x", id="edited")
    yield "edit", talk.edit("edited", value).value
    yield "message popped", talk.pop().value
    stream = io.BytesIO()
    memory.export(stream)
    stream.seek(0)
    copy = Memory("copied", store=store)
    copy.import_(stream)
    yield "export and import", copy.get("a")
    yield "imported past", copy.history("a")[-1].value
    yield "imported message", copy.conversation("talk").messages()[0].value
    copy.erase()


@pytest.mark.parametrize("name", EXACT)
def test_a_value_comes_back_exactly(memory, store, name):
    value = EXACT[name]
    for road, found in roads(memory, store, value):
        assert same(found, value), f"{road}: {found!r} is not {value!r}"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values)
def test_any_json_value_comes_back_exactly(memory, value):
    memory.set("a", value)
    memory.set("a", "next")
    assert same(memory.history("a")[1].value, value)
    assert same(memory.undo("a").value, value)
    assert same(memory.get("a"), value)
    assert same(memory.conversation("t").append(value).value, value)
    assert same(memory.conversation("t").messages(last=1)[0].value, value)


def test_a_value_that_was_read_is_ones_own(memory):
    item = memory.set("a", {"list": [1]})
    memory.get("a")["list"].append(2)
    memory.item("a").value["list"].append(3)
    item.value["list"].append(4)
    assert memory.get("a") == item.value == {"list": [1]}


def test_changing_what_was_given_later_changes_nothing(memory):
    value = {"list": [1]}
    item = memory.set("a", value)
    message = memory.conversation("t").append(value)
    value["list"].append(2)
    assert item.value == memory.get("a") == message.value == {"list": [1]}
    assert memory.conversation("t").messages()[0].value == {"list": [1]}


def test_tuples_and_sets_become_lists_and_number_keys_text(memory):
    memory.set("a", {"t": (1, (2,)), "s": {3}, "f": frozenset([4]), 5: "five"})
    assert memory.get("a") == {"t": [1, [2]], "s": [3], "f": [4], "5": "five"}
    memory.set("b", OrderedDict([("z", 1), ("a", 2)]))
    assert list(memory.get("b").items()) == [("z", 1), ("a", 2)]


# ── what cannot be stored ──


def cyclic():
    value: list[Any] = []
    value.append({"self": value})
    return value


def nested(depth):
    value: Any = "bottom"
    for number in range(depth):
        value = [value] if number % 2 else {"k": value}
    return value


@dataclass
class Holder:
    value: Any


BAD = {
    "nan": float("nan"),
    "infinity": float("inf"),
    "minus infinity": [1, {"deep": -math.inf}],
    "nan beside none": [None, float("nan")],
    "nan beside text that says null": {"null": "null", "x": float("nan")},
    "nan in a tuple": (1, float("nan")),
    "nan in a dataclass": Holder(float("nan")),
    "nan beside half a surrogate pair": ["\ud800", float("nan")],
    "a cycle": cyclic(),
    "a cycle beside half a surrogate pair": ["\ud800", cyclic()],
    "too deep": nested(129),
    "much too deep": nested(100_000),
    "too deep beside half a surrogate pair": ["\ud800", nested(129)],
    "an object": object(),
    "a function": len,
    "a class": dict,
    "a generator": (x for x in "ab"),
    "an exception": ValueError("x"),
    "a complex number": 1j,
    "an object inside": {"a": [1, object()]},
}


@pytest.mark.parametrize("name", BAD)
def test_what_json_cannot_say_is_an_error_and_changes_nothing(memory, name):
    memory.set("a", "kept")
    talk = memory.conversation("t")
    talk.append("kept", id="m")
    before = memory.stats()
    for attempt in (
        lambda: memory.set("a", BAD[name]),
        lambda: memory.set_many({"b": 1, "a": BAD[name]}),
        lambda: memory.update("a", lambda _: BAD[name]),
        lambda: memory.setdefault("new", BAD[name]),
        lambda: memory.batch().set("a", BAD[name]),
        lambda: talk.append(BAD[name]),
        lambda: talk.extend(["fine", BAD[name]]),
        lambda: talk.edit("m", BAD[name]),
    ):
        with pytest.raises(InvalidInput):
            attempt()
    assert memory.stats() == before
    assert memory.get("a") == "kept"


def test_the_deepest_that_is_allowed_comes_back(memory):
    memory.set("a", nested(128))
    assert memory.get("a") == nested(128)
    memory.set("b", "[" * 1_000)  # brackets in text are no depth
    assert memory.get("b") == "[" * 1_000
    memory.set("c", [[]] * 1_000)
    assert memory.get("c") == [[]] * 1_000


def test_a_value_may_take_one_mebibyte(memory):
    memory.set("a", "x" * (1024 * 1024 - 2))
    assert len(memory.get("a")) == 1024 * 1024 - 2
    for value in ("x" * (1024 * 1024 - 1), ["x" * 1024] * 1024, "🙂" * (256 * 1024)):
        with pytest.raises(TooLarge, match="1,048,576"):
            memory.set("a", value)
        with pytest.raises(TooLarge):
            memory.conversation("t").append(value)
    assert len(memory.get("a")) == 1024 * 1024 - 2


def test_how_large_can_be_set(memory):
    memory.configure(max_value_bytes=10)
    memory.set("a", "x" * 8)
    with pytest.raises(TooLarge, match="max_value_bytes"):
        memory.set("a", "x" * 9)
    with pytest.raises(TooLarge):
        memory.conversation("t").append("x" * 9)
    talk = memory.conversation("t")
    talk.append("x", id="m")
    with pytest.raises(TooLarge):
        talk.edit("m", "x" * 9)
    memory.configure(max_value_bytes=3 * 1024 * 1024)
    memory.set("a", "x" * 2_000_000)
    assert len(memory.get("a")) == 2_000_000


# ── typed ──


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


@dataclass
class Prefs:
    color: Color
    since: datetime
    id: UUID
    tags: list[str] = field(default_factory=list)
    nested: "Prefs | None" = None


class Profile(BaseModel):
    name: str
    born: date
    scores: dict[str, float] = {}


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Pair(NamedTuple):
    left: int
    right: str


class Settings(TypedDict):
    theme: str


ID = UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)

TYPED = {
    "dataclass": (Prefs(Color.RED, NOON, ID, ["a"], Prefs(Color.BLUE, NOON, ID)), Prefs),
    "pydantic": (Profile(name="Ada", born=date(1815, 12, 10), scores={"math": 1.0}), Profile),
    "struct": (Point(1, 2), Point),
    "named tuple": (Pair(1, "a"), Pair),
    "typed dict": ({"theme": "dark"}, Settings),
    "datetime": (NOON, datetime),
    "datetime elsewhere": (NOON.astimezone(timezone(timedelta(hours=5, minutes=30))), datetime),
    "date": (date(2024, 2, 29), date),
    "timedelta": (timedelta(seconds=90), timedelta),
    "uuid": (ID, UUID),
    "enum": (Color.BLUE, Color),
    "int enum": (Level.LOW, Level),
    "decimal": (Decimal("1.10"), Decimal),
    "bytes": (b"\x00\xff", bytes),
    "list of dataclasses": ([Prefs(Color.RED, NOON, ID)], list[Prefs]),
    "dict of structs": ({"a": Point(1), "b": Point(2)}, dict[str, Point]),
    "set": ({1, 2}, set[int]),
    "union": (Point(3), Point | None),
    "float": (1.5, float),
}


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_value_comes_back_typed(memory, name):
    value, kind = TYPED[name]
    item = memory.set("a", value)
    assert memory.get("a", type=kind) == value
    assert type(memory.get("a", type=kind)) is type(value)
    assert memory.item("a").value_as(kind) == value
    assert item.value == memory.get("a")  # and as plain JSON
    version = item.version
    memory.set("a", None)
    assert memory.get("a", type=kind, as_of=version) == value
    assert memory.history("a")[1].value_as(kind) == value
    message = memory.conversation("t").append(value)
    assert message.value_as(kind) == value


def test_what_is_not_there_answers_the_default_typed_or_not(memory):
    assert memory.get("a", type=Prefs) is None
    default = Prefs(Color.RED, NOON, ID)
    assert memory.get("a", default, type=Prefs) is default


@pytest.mark.parametrize("kind", [Prefs, Profile, Point, datetime, UUID, Color, int, list[int]])
def test_a_value_that_does_not_fit_the_type_is_an_error(memory, kind):
    memory.set("a", {"neither": "of them"})
    with pytest.raises(InvalidInput, match="stored value"):
        memory.get("a", type=kind)


def test_values_of_types_are_told_apart(memory):
    memory.set_many({"int": 5, "text": "5", "float": 5.0, "bool": True})
    assert [memory.get(key, type=int) for key in ("int",)] == [5]
    with pytest.raises(InvalidInput):
        memory.get("text", type=int)
    with pytest.raises(InvalidInput):
        memory.get("int", type=str)
