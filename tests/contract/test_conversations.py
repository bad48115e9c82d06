"""Rule: a conversation is an append-only run of messages, each a row of its own."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from botwire import Conflict, InvalidInput, Memory, NotFound
from botwire.ops import Edit, Messages, NewMessage


@pytest.fixture
def talk(memory):
    return memory.conversation("thread-1")


def values(talk, **more):
    return [message.value for message in talk.messages(**more)]


# ── append ──


def test_what_is_appended_is_what_is_read(talk, clock):
    first = talk.append({"role": "user", "content": "hi"})
    clock.advance(5)
    second = talk.append("plain text", role="assistant", author="bot", id="m2")
    assert talk.messages() == [first, second] == list(talk)
    assert (first.id, first.version, first.role, first.author, first.value) == (
        "#1",
        1,
        "user",
        None,
        {"role": "user", "content": "hi"},
    )
    assert (second.id, second.role, second.author, second.at) == ("m2", "assistant", "bot", clock.at)
    assert (first.conversation, first.namespace) == ("thread-1", "user-42")
    assert talk.message("m2") == second
    assert talk.message("#1") == first
    assert talk.message("#2") is None  # it has an id of its own
    assert len(talk) == 2
    assert talk


def test_an_empty_conversation_is_one(talk):
    assert (len(talk), bool(talk), talk.messages(), list(talk), talk.pop()) == (0, True, [], [], None)
    assert (talk.info().messages, talk.info().version, talk.info().name) == (0, 0, "thread-1")
    assert talk.messages(last=5) == talk.messages(max_tokens=100) == []


def test_extend_appends_in_order_with_nothing_between(talk, memory):
    messages = talk.extend([{"role": "user", "content": str(number)} for number in range(5)])
    assert [message.version for message in messages] == [1, 2, 3, 4, 5]
    assert talk.messages() == messages
    assert talk.extend([]) == []


def test_extend_is_all_or_nothing(talk):
    talk.append("there", id="x")
    with pytest.raises(InvalidInput):
        talk.extend(["fine", float("nan")])
    assert values(talk) == ["there"]


def test_conversations_are_apart(memory, store):
    one, two, elsewhere = (
        memory.conversation("a"),
        memory.conversation("ab"),
        Memory("b", store=store).conversation("a"),
    )
    one.extend(["1", "2"])
    two.append("3", id="m")
    elsewhere.append("4", id="m")
    one.append("5")
    assert (values(one), values(two), values(elsewhere)) == (["1", "2", "5"], ["3"], ["4"])
    assert one.message("m") is None
    assert one.message(two.messages()[0].id) is None
    assert one.message("#3") is None


def test_info_tells_how_much_there_is(talk, clock):
    began = clock.at
    talk.append("x" * 10)
    clock.advance(60)
    last = talk.append("y" * 20, id="mm", role="user")
    info = talk.info()
    assert (info.messages, info.version) == (2, last.version)
    assert (info.created_at, info.updated_at) == (began, clock.at)
    assert info.bytes == 12 + 22 + len("mm") + len("user")


def test_conversations_are_listed_by_name(memory):
    for name in ("b", "a/1", "a", "c"):
        memory.conversation(name).append(name)
    assert [info.name for info in memory.conversations()] == ["a", "a/1", "b", "c"]
    assert [info.name for info in memory.conversations("a")] == ["a", "a/1"]
    assert memory.conversation("a").info().name == "a"


# ── ids ──


def test_a_message_with_an_id_is_appended_once(talk):
    first = talk.append("hello", id="m1")
    talk.append("next")
    again = talk.append("hello", id="m1")
    assert (again.version, again.created, again.id) == (first.version, first.created, "m1")
    assert values(talk) == ["hello", "next"]


def test_another_message_under_the_same_id_is_a_conflict(talk):
    first = talk.append("hello", id="m1")
    with pytest.raises(Conflict, match="m1") as raised:
        talk.append("something else", id="m1")
    assert raised.value.version == first.version
    assert values(talk) == ["hello"]


def test_ids_in_one_append_are_idempotent_one_by_one(talk, store):
    from botwire.ops import Append

    def new(value, id=None):
        return NewMessage(Raw(f'"{value}"'.encode()), id)

    talk.append("b", id="b")
    [stamps] = store.execute([Append("user-42", "thread-1", [new("a", "a"), new("b", "b"), new("c"), new("a", "a")])])
    assert values(talk) == ["b", "a", "c"]
    assert [stamp.version for stamp in stamps] == [2, 1, 3, 2]
    with pytest.raises(InvalidInput, match="twice"):
        store.execute([Append("user-42", "thread-1", [new("d", "d"), new("e", "d")])])
    assert len(talk) == 3


def test_a_message_that_was_edited_since_is_still_the_one_with_that_id(talk):
    talk.append("hello", id="m1")
    talk.edit("m1", "edited")
    talk.append("hello", id="m1")
    assert values(talk) == ["edited"]


def test_an_id_that_was_deleted_is_free_again(talk):
    first = talk.append("hello", id="m1")
    talk.delete("m1")
    assert talk.append("other", id="m1").version > first.version
    assert values(talk) == ["other"]


# ── what is recognised ──

RECOGNISED = [
    ({"role": "user", "content": "x"}, "user", None),
    ({"role": "system", "content": "x"}, "system", None),
    ({"role": "assistant", "content": None, "tool_calls": []}, "assistant", None),
    ({"role": "tool", "tool_call_id": "1", "content": "x"}, "tool", None),
    ({"role": "user", "name": "ann", "content": "x"}, "user", "ann"),
    ({"type": "human", "data": {"content": "x", "name": "ann"}}, "user", "ann"),
    ({"type": "ai", "data": {"content": "x"}}, "assistant", None),
    ({"type": "system", "data": {"content": "x"}}, "system", None),
    ({"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}, "assistant", None),
    ({"type": "function_call_output", "call_id": "1", "output": "x"}, "tool", None),
    ({"role": "model", "parts": [{"text": "x"}]}, "assistant", None),
    ({"source": "researcher", "content": "x", "type": "TextMessage"}, None, "researcher"),
    ("just text", None, None),
    (None, None, None),
    (5, None, None),
    ([1, 2], None, None),
    ({}, None, None),
    ({"role": 5, "name": 6}, None, None),
    ({"role": "", "name": "a\nb", "content": "x"}, None, None),
]


@pytest.mark.parametrize(("value", "role", "author"), RECOGNISED[:8] + RECOGNISED[10:], ids=lambda part: str(part)[:30])
def test_role_and_author_are_recognised_in_any_json(talk, value, role, author):
    message = talk.append(value)
    assert message.value == value
    assert (message.role, message.author) == (role, author)
    assert talk.messages() == [message]


def test_function_calls_are_recognised(talk):
    for value, role, _ in RECOGNISED[8:10]:
        assert talk.append(value).role == role


def test_what_is_given_goes_before_what_is_recognised(talk):
    message = talk.append({"role": "user", "name": "ann"}, role="critic", author="bob")
    assert (message.role, message.author) == ("critic", "bob")


def test_the_memorys_author_is_the_messages_author(store):
    talk = Memory("a", store=store, author="agent-7").conversation("t")
    assert [talk.append("x").author, talk.append("x", author="me").author, talk.extend(["x"])[0].author] == [
        "agent-7",
        "me",
        "agent-7",
    ]


def test_the_time_of_a_message_is_given_or_recognised_or_now(talk, clock):
    said = datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert talk.append("x", at=said).at == said
    assert talk.append({"created_at": said.isoformat()}).at == said
    assert talk.append({"timestamp": 1_600_000_000}).at == datetime.fromtimestamp(1_600_000_000, UTC)
    assert talk.append({"at": "2020-01-02T03:04:05"}).at == clock.at  # no time zone: nobody knows when
    assert talk.append({"at": "yesterday"}).at == clock.at
    assert [message.at for message in talk.messages()][:2] == [said, said]
    for wrong in (said.replace(tzinfo=None), datetime(1969, 12, 31, tzinfo=UTC)):
        with pytest.raises(InvalidInput):
            talk.append("x", at=wrong)


@pytest.mark.parametrize(
    "when", ["0001-01-01T00:00:00+00:00", "1960-05-05T00:00:00Z", "9999-12-31T23:59:59-12:00", -5, 1e300, 10**400]
)
def test_a_time_that_cannot_be_one_is_not_recognised_and_refuses_nothing(talk, clock, when):
    message = talk.append({"role": "user", "content": "x", "created_at": when})
    assert message.value["created_at"] == when
    assert message.at == clock.at


# ── reading ──


def test_the_last_ones_are_read_oldest_first(talk):
    talk.extend(list(range(30)))
    for last in (0, 1, 7, 30, 99):
        assert values(talk, last=last) == list(range(30))[30 - min(last, 30) :]


def test_one_can_page_back_and_forth(talk):
    talk.extend(list(range(25)))
    page = talk.messages(last=10)
    seen: list[int] = []
    while page:
        seen = [message.value for message in page] + seen
        page = talk.messages(last=10, before=page[0])
    assert seen == list(range(25))
    fifth = talk.messages()[4]
    assert values(talk, after=fifth) == list(range(5, 25))
    assert values(talk, after=fifth.version, before=fifth.version + 4) == [5, 6, 7]
    assert values(talk, after=fifth, last=2) == [23, 24]
    assert values(talk, before=fifth) == [0, 1, 2, 3]
    assert values(talk, before=0) == values(talk, after=10**12) == []


def test_roles_can_be_chosen(talk):
    talk.extend([{"role": role, "n": n} for n, role in enumerate(["system", "user", "assistant", "user", "developer"])])
    talk.append("no role")

    def numbers(**more):
        return [message.value["n"] for message in talk.messages(**more)]

    assert numbers(roles=["user"]) == [1, 3]
    assert numbers(roles=["user", "assistant"], last=2) == [2, 3]
    assert numbers(roles=["system", "developer"]) == [0, 4]
    assert numbers(roles=("developer", "system")) == [0, 4]
    assert numbers(roles=[]) == []
    assert numbers(roles=["nobody"]) == []
    with pytest.raises(InvalidInput, match="list of strings"):
        talk.messages(roles="user")


def test_long_conversations_are_read_page_by_page(talk, store, rounds):
    count = rounds(1_300, 20_000)
    for start in range(0, count, 1_300):
        talk.extend(list(range(start, start + 1_300)))
    total = len(talk)
    assert values(talk) == [message.value for message in talk] == list(range(total))
    assert values(talk, last=700) == list(range(total - 700, total))
    [page] = store.execute([Messages("user-42", "thread-1", limit=5, reverse=True)])
    assert [message.value for message in page.messages] == list(range(total - 1, total - 6, -1))
    assert page.more


def test_messages_can_be_asked_for_by_id(talk, store):
    talk.extend(["a", "b", "c"])
    talk.append("d", id="x")
    [page] = store.execute([Messages("user-42", "thread-1", ids=("x", "#2", "nope", "#99"))])
    assert [message.value for message in page.messages] == ["b", "d"]
    [page] = store.execute([Messages("user-42", "thread-1", ids=())])
    assert page.messages == []


@pytest.mark.parametrize("last", [-1, 1.5, "3", True])
def test_a_number_of_messages_that_is_none_is_refused(talk, last):
    with pytest.raises(InvalidInput, match="last"):
        talk.messages(last=last)


# ── changing ──


def test_pop_takes_the_last_away(talk):
    talk.extend(["a", "b"])
    assert talk.pop().value == "b"
    assert talk.pop().value == "a"
    assert talk.pop() is None
    assert len(talk) == 0
    talk.append("c")
    assert values(talk) == ["c"]


def test_an_edit_stands_where_the_message_stood(talk, clock):
    talk.extend([{"role": "user", "content": str(number)} for number in range(3)])
    middle = talk.messages()[1]
    clock.advance(5)
    edited = talk.edit(middle, {"role": "assistant", "content": "other"})
    assert (edited.id, edited.version, edited.created) == (middle.id, middle.version, middle.created)
    assert (edited.role, edited.edited, edited.value["content"]) == ("assistant", clock.now, "other")
    assert talk.messages()[1] == edited
    assert talk.message(middle.id) == edited
    assert len(talk) == 3


def test_an_edit_can_say_what_it_replaces(store, memory):
    talk = memory.conversation("thread-1")
    message = talk.append("first")
    edit = Edit(memory.namespace, "thread-1", message.id, Raw(b'"second"'))
    stamp = store.execute([replace(edit, if_text='"first"')])[0]
    for wrong in ('"first"', "", '"SECOND"', '"half \\ud83d"'):
        with pytest.raises(Conflict, match="changed") as raised:
            store.execute([replace(edit, raw=Raw(b'"third"'), if_text=wrong)])
        assert raised.value.version == message.version
    assert memory.stats().version == stamp.version
    assert [each.value for each in talk.messages()] == ["second"]
    assert store.execute([replace(edit, id="nobody", if_text="")]) == [None]


def test_an_edit_keeps_role_and_author_that_the_new_value_does_not_give(talk):
    talk.append("x", role="user", author="ann", id="m")
    edited = talk.edit("m", "y")
    assert (edited.role, edited.author) == ("user", "ann")
    assert talk.message("m") == edited


def test_editing_what_is_not_there_is_an_error(talk):
    for change in (lambda: talk.edit("x", 1), lambda: talk.redact("x")):
        with pytest.raises(NotFound, match="thread-1"):
            change()
        with pytest.raises(KeyError):
            change()


REDACTED = [
    ("secret text", "[redacted]"),
    ({"role": "user", "content": "secret"}, {"role": "user", "content": "[redacted]"}),
    (
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "secret"}]},
        {"role": "user", "content": "[redacted]"},
    ),
    (
        {
            "role": "assistant",
            "content": "secret",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "secret"}'}}],
        },
        {
            "role": "assistant",
            "content": "[redacted]",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
    ),
    (
        {"role": "tool", "tool_call_id": "c1", "content": "secret"},
        {"role": "tool", "tool_call_id": "c1", "content": "[redacted]"},
    ),
    (
        {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"a": "secret"}'},
        {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": "{}"},
    ),
    (
        {"type": "function_call_output", "call_id": "c1", "output": "secret"},
        {"type": "function_call_output", "call_id": "c1", "output": "[redacted]"},
    ),
    (
        {
            "type": "ai",
            "data": {"content": "secret", "tool_calls": [{"id": "c1", "name": "f", "args": {"a": "secret"}}]},
        },
        {"type": "ai", "data": {"content": "[redacted]", "tool_calls": [{"id": "c1", "name": "f", "args": {}}]}},
    ),
]


@pytest.mark.parametrize(("value", "left"), REDACTED, ids=lambda part: str(part)[:30])
def test_redacting_leaves_what_a_model_needs_and_nothing_of_the_content(talk, memory, value, left):
    original = talk.append(value, id="m")
    redacted = talk.redact("m")
    assert redacted.value == left
    assert redacted.redacted
    assert (redacted.id, redacted.version, redacted.role) == (original.id, original.version, original.role)
    assert talk.message("m") == redacted
    assert b"secret" not in msgspec.json.encode(list(memory.records()))


ANTHROPIC_PARTS = [
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "secret"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": "secret"}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "secret"}]},
]


def test_redacting_parts_keeps_the_ids_that_hold_calls_and_results_together(talk):
    """A model refuses a result without its call: what is blotted out must still be its partner."""
    for number, value in enumerate(ANTHROPIC_PARTS):
        talk.append(value, id=f"m{number}")
    talk.redact("m0")
    talk.redact("m1")
    call, result = values(talk)
    assert "secret" not in str([call, result])
    assert [part["id"] for part in call["content"] if part["type"] == "tool_use"] == ["c1"]
    assert [part["tool_use_id"] for part in result["content"] if part["type"] == "tool_result"] == ["c1"]


def test_redact_takes_a_text_of_ones_own(talk):
    message = talk.append({"role": "user", "content": "secret"})
    assert talk.redact(message, "—").value == {"role": "user", "content": "—"}


def test_one_message_can_be_deleted(talk):
    messages = talk.extend(["a", "b", "c"])
    assert talk.delete(messages[1]) is True
    assert talk.delete(messages[1].id) is False
    assert values(talk) == ["a", "c"]
    assert len(talk) == 2


def test_trim_keeps_the_last_or_those_since_a_time(talk, clock):
    for number in range(10):
        talk.append(number)
        clock.advance(60)
    assert talk.trim(keep=20) == 0
    assert talk.trim(keep=8) == 2
    assert values(talk) == list(range(2, 10))
    assert talk.trim(older_than=clock.ago(300)) == 3
    assert values(talk) == list(range(5, 10))
    assert talk.trim(older_than=clock.ago(300)) == 0
    assert talk.trim(keep=0) == 5
    assert values(talk) == []
    assert (talk.info().messages, talk.info().bytes) == (0, 0)


def test_trim_takes_one_way(talk, clock):
    talk.append("x")
    for arguments in ({}, {"keep": 1, "older_than": clock.at}, {"keep": -1}):
        with pytest.raises(InvalidInput):
            talk.trim(**arguments)
    with pytest.raises(InvalidInput, match="time zone"):
        talk.trim(older_than=clock.at.replace(tzinfo=None))
    assert len(talk) == 1


def test_clear_removes_the_conversation(talk, memory):
    talk.extend(["a", "b"])
    assert talk.clear() == 2
    assert list(memory.conversations()) == []
    assert talk.clear() == 0
    later = talk.append("c", if_version=0)
    assert later.version == 4
    assert values(talk) == ["c"]


# ── retention ──


def test_a_number_of_messages_is_kept(memory, talk):
    memory.configure(messages=5)
    talk.extend(list(range(3)))
    for number in range(3, 12):
        talk.append(number)
        assert len(talk) == min(5, number + 1)
    assert values(talk) == list(range(7, 12))
    talk.extend(list(range(100, 120)))
    assert values(talk) == list(range(115, 120))
    assert talk.info().messages == memory.stats().messages == 5
    memory.configure(messages=0)
    talk.extend(list(range(10)))
    assert len(talk) == 15


def test_messages_are_kept_for_a_time(memory, talk, clock):
    memory.configure(messages_max_age=timedelta(hours=1))
    talk.append("old")
    clock.advance(1_800)
    talk.append("newer", id="n")
    clock.advance(1_801)
    assert values(talk) == [message.value for message in talk] == values(talk, last=5) == ["newer"]
    assert talk.message("#1") is None
    talk.append("newest")
    assert memory.stats().messages == 2
    clock.advance(3_601)
    assert values(talk) == []
    assert values(talk, max_tokens=1_000) == []


def test_a_message_over_its_age_is_unreadable_by_every_road(memory, talk, clock, store):
    """What retention has made unreadable is not to be found by another way in."""
    memory.configure(messages_max_age=60)
    talk.append("secret", id="m1")
    clock.advance(61)
    assert talk.message("m1") is None
    assert talk.pop() is None
    assert b"secret" not in msgspec.json.encode(list(memory.records()))
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    copy.configure(messages_max_age=0)
    assert copy.conversation("thread-1").messages() == []


# ── budget ──


def test_a_budget_of_tokens_takes_the_newest_and_always_the_system(talk):
    talk.append({"role": "system", "content": "be kind"})
    talk.extend([{"role": "user", "content": f"message {number}"} for number in range(200)])

    def one_each(value):
        return 1

    chosen = talk.messages(max_tokens=11, counter=one_each)
    assert [message.value["content"] for message in chosen] == ["be kind"] + [f"message {n}" for n in range(190, 200)]
    assert talk.messages(max_tokens=1_000, counter=one_each) == talk.messages()
    assert [m.role for m in talk.messages(max_tokens=1, counter=one_each)] == ["system"]
    with pytest.raises(InvalidInput, match="max_tokens"):
        talk.messages(max_tokens=0, counter=one_each)


def test_a_counter_sees_the_value_and_decides(talk):
    talk.extend(["a" * 10, "b" * 20, "c" * 5])
    assert values(talk, max_tokens=25, counter=len) == ["b" * 20, "c" * 5]
    assert values(talk, max_tokens=24, counter=len) == ["c" * 5]
    assert values(talk, max_tokens=4, counter=len) == []


def test_a_budget_stands_alone_but_for_a_place(talk):
    messages = talk.extend(["a", "b", "c"])
    assert values(talk, max_tokens=1_000, before=messages[2]) == ["a", "b"]
    assert values(talk, max_tokens=1_000, after=messages[0]) == ["b", "c"]
    for more in ({"last": 2}, {"roles": ["user"]}):
        with pytest.raises(InvalidInput, match="max_tokens"):
            talk.messages(max_tokens=10, **more)


@pytest.mark.parametrize("budget", [-1, True, 1.5, "100"])
def test_a_budget_that_is_none_is_refused(talk, budget):
    talk.append("x")
    with pytest.raises(InvalidInput, match="max_tokens"):
        talk.messages(max_tokens=budget)


def test_a_message_over_its_age_is_swept_by_any_write_of_its_namespace(memory, clock):
    memory.configure(messages_max_age=60)
    memory.conversation("quiet").extend(["a", "b"])
    clock.advance(30)
    memory.conversation("quiet").append("c")
    clock.advance(31)
    memory.set("elsewhere", 1)
    assert [message.value for message in memory.conversation("quiet")] == ["c"]
    assert (len(memory.conversation("quiet")), memory.stats().messages) == (1, 1)
    clock.advance(30)
    memory.set("elsewhere", 2)
    assert (len(memory.conversation("quiet")), memory.stats().messages) == (0, 0)


def test_a_message_over_its_age_is_swept_in_a_copy_too(memory, store, clock):
    memory.configure(messages_max_age=60)
    memory.conversation("quiet").append("a")
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    clock.advance(61)
    copy.set("elsewhere", 1)
    assert copy.stats().messages == 0
