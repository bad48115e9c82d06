"""The published surface: what the page about assistants shows, what the 0.2.1 client offered, and what we export."""

from __future__ import annotations

import ast
import copy
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import botwire
from botwire import (
    AsyncMemory,
    BotWireError,
    Conflict,
    Conversation,
    HostedOnly,
    InvalidInput,
    Memory,
    NotFound,
    RateLimited,
    StoreUnavailable,
    errors,
)
from botwire.stores.sqlite import SQLiteStore


def run(code: str, *arguments: str) -> str:
    """What a program prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ── the page ──


def test_a_preference_survives_its_process():
    run(
        "from botwire import Memory\n"
        "memory = Memory('user-preferences')\n"
        "memory.set('user_123_coffee', 'Ethiopian Yirgacheffe')\n"
        "memory.set('user_123_meetings', ['Monday 9am', 'Wednesday 2pm'])\n"
    )
    printed = run(
        "from botwire import Memory\n"
        "memory = Memory('user-preferences')\n"
        "print(memory.get('user_123_coffee'))\n"
        "print(memory.get('user_123_meetings'))\n"
    )
    assert printed == "Ethiopian Yirgacheffe\n['Monday 9am', 'Wednesday 2pm']\n"


def test_preferences_are_kept_for_each_user():
    for user_id in (1, 2):
        user_memory = Memory(f"user-{user_id}")
        user_memory.set("notification_time", "9:00 AM")
        user_memory.set("timezone", "US/Pacific")
        user_memory.set("communication_style", f"direct {user_id}")
    prefs = {
        "time": Memory("user-1").get("notification_time"),
        "style": Memory("user-1").get("communication_style"),
    }
    assert prefs == {"time": "9:00 AM", "style": "direct 1"}


def test_knowledge_is_shared_by_all_who_name_the_namespace():
    kb = Memory("company-knowledge")
    kb.set("office_hours", "9 AM - 6 PM PST")
    kb.set("return_policy", "30 days, receipt required")
    assert Memory("company-knowledge").get("return_policy") == "30 days, receipt required"
    assert Memory("user-1").get("return_policy") is None


def test_memory_is_listed_and_managed():
    memory = Memory("user-preferences")
    memory.set("a", 1)
    memory.set("outdated_preference", 2)
    all_keys = memory.list_keys()
    assert f"Stored: {len(all_keys)} items" == "Stored: 2 items"
    assert memory.delete("outdated_preference") is True
    assert memory.delete("outdated_preference") is False
    assert memory.list_keys() == ["a"]
    assert not memory.get("user_onboarded")
    memory.set("user_onboarded", True)
    assert memory.get("user_onboarded")
    memory.clear()
    assert memory.list_keys() == []


class Assistants:
    """Stands for somebody else's client: it notes what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        messages = SimpleNamespace(create=lambda thread_id, role, content: self.said.append(content))
        runs = SimpleNamespace(create=lambda thread_id, assistant_id: "answer")
        threads = SimpleNamespace(create=lambda: SimpleNamespace(id="thread"), messages=messages, runs=runs)
        self.beta = SimpleNamespace(threads=threads)


def test_an_assistant_remembers_from_one_thread_to_the_next():
    client, memory = Assistants(), Memory("assistant-context")

    def chat_with_memory(user_id: str, message: str) -> Any:
        context = memory.get(f"context_{user_id}") or {}
        thread = client.beta.threads.create()
        preferences = f"User preferences: {context}" if context else ""
        client.beta.threads.messages.create(
            thread_id=thread.id, role="user", content=f"{preferences}\n\nUser: {message}"
        )
        answer = client.beta.threads.runs.create(thread_id=thread.id, assistant_id="asst-xxx")
        if "remember" in message.lower():
            memory.set(f"context_{user_id}", {"last_topic": message})
        return answer

    assert chat_with_memory("ann", "Remember that I like tea") == "answer"
    chat_with_memory("ann", "What do I like?")
    chat_with_memory("bob", "What do I like?")
    assert client.said == [
        "\n\nUser: Remember that I like tea",
        "User preferences: {'last_topic': 'Remember that I like tea'}\n\nUser: What do I like?",
        "\n\nUser: What do I like?",
    ]


def test_it_can_be_told_to_forget_after_a_while():
    memory = Memory("user-42")
    memory.set("coffee", "Ethiopian Yirgacheffe", ttl=3_600)
    expires = memory.item("coffee")
    assert expires is not None
    assert expires.expires_at is not None


# ── the 0.2.1 client ──


def test_arguments_may_be_given_by_position(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    Memory("my-agent", url, 10.0).set("user_name", "Pedro")
    assert Memory(namespace="my-agent", base_url=url, timeout=10.0).get("user_name") == "Pedro"
    assert Memory("my-agent", url=url).get("user_name") == "Pedro"
    assert Memory("my-agent", url).namespace == "my-agent"
    with pytest.raises(InvalidInput, match="base_url"):
        Memory("my-agent", url, base_url=url)


def test_the_verbs_of_0_2():
    mem = Memory("namespace")
    mem.set("key", "string value")
    mem.set("obj", {"nested": {"data": True}})
    assert mem.get("key", default=None) == "string value"
    assert mem.get("missing", "fallback") == mem.get("missing", default="fallback") == "fallback"
    assert mem.get("obj") == {"nested": {"data": True}}
    assert mem.keys() == ["key", "obj"]
    assert "key" in mem
    assert "missing" not in mem
    assert mem.delete("key") is True
    assert mem.delete("key") is False
    assert "key" not in mem


def test_an_empty_namespace_is_a_value_error_as_it_was():
    with pytest.raises(ValueError, match="namespace"):
        Memory("")


def test_rate_limits_say_when_to_come_back():
    error = RateLimited(7)
    assert isinstance(error, BotWireError)
    assert error.retry_after == 7
    assert "7" in str(error)
    assert RateLimited().retry_after == 60
    assert pickle.loads(pickle.dumps(error)).retry_after == 7


HOSTED = [
    "Channel",
    "register",
    "RegistrationRequired",
    "ChannelNotFound",
    "PostFailed",
    "PaymentRequired",
    "InvalidType",
]


@pytest.mark.parametrize("name", HOSTED)
def test_names_of_the_hosted_platform_say_so(name):
    with pytest.raises(HostedOnly, match=f"botwire.{name}.*0.2"):
        getattr(botwire, name)
    with pytest.raises(HostedOnly):
        exec(f"from botwire import {name}")
    assert issubclass(HostedOnly, BotWireError)


def test_a_name_that_never_was_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="Memmory"):
        botwire.Memmory  # noqa: B018  # reading it is the test
    assert not hasattr(botwire, "Memmory")


# ── what is exported ──


def test_all_is_what_is_exported():
    assert botwire.__all__ == sorted(set(botwire.__all__))
    for name in botwire.__all__:
        assert getattr(botwire, name).__name__ == name
    assert set(errors.__all__) <= set(botwire.__all__)
    tree = ast.parse(Path(str(botwire.__file__)).read_text())
    imported = {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) and node.level for alias in node.names
    }
    assert imported <= set(botwire.__all__)
    scope: dict[str, Any] = {}
    exec("from botwire import *", scope)
    assert set(botwire.__all__) == set(scope) - {"__builtins__"}


def test_every_error_descends_from_one():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), BotWireError)
    assert issubclass(NotFound, KeyError)
    assert issubclass(InvalidInput, ValueError)


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_can_be_pickled(name):
    error = getattr(errors, name)("what happened") if name != "RateLimited" else RateLimited(3, "what happened")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), "what happened", vars(error))


def test_public_things_are_described():
    for name in botwire.__all__:
        thing = getattr(botwire, name)
        assert thing.__doc__
        for method, value in vars(thing).items():
            if callable(value) and not method.startswith("_") and not issubclass(thing, BaseException):
                assert value.__doc__, f"{name}.{method}"


# ── imports ──

IMPORT = """
import sys
before = set(sys.modules)
from botwire import Memory
memory = Memory("user-42")
{use}
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""
HEAVY = {
    "apsw", "httpx", "httpcore", "anyio", "click", "platformdirs", "asyncio", "sqlite3", "pydantic", "fastapi",
    "starlette", "uvicorn", "psycopg", "numpy", "rich", "langchain_core", "langgraph", "crewai", "autogen_core",
    "openai", "anthropic", "mcp", "ssl", "concurrent", "botwire_langchain", "botwire_server",
}  # fmt: skip


def test_the_import_brings_nothing_that_is_not_used():
    imported = set(run(IMPORT.format(use="")).split())
    assert {"botwire", "msgspec"} <= imported
    assert imported & HEAVY == set()


def test_the_first_use_brings_the_store_and_no_network():
    imported = set(run(IMPORT.format(use="memory.set('a', 1); memory.get('a')")).split())
    assert "apsw" in imported
    assert imported & (HEAVY - {"apsw", "platformdirs", "asyncio", "ssl", "concurrent"}) == set()


def test_making_a_memory_touches_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    memory = Memory("a", "sqlite:///memory.db")
    assert list(tmp_path.iterdir()) == []
    memory.get("a")
    assert (tmp_path / "memory.db").exists()


# ── a mapping ──


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory("user-42", f"sqlite:///{tmp_path / 'memory.db'}")


def test_it_is_a_mapping(memory):
    memory["a"] = 1
    memory["b"] = [2]
    assert (memory["a"], memory["b"]) == (1, [2])
    assert list(memory) == ["a", "b"]
    assert len(memory) == 2
    assert dict(memory.items()) == {"a": 1, "b": [2]}
    assert "a" in memory
    assert 5 not in memory
    del memory["a"]
    with pytest.raises(KeyError):
        memory["a"]
    with pytest.raises(NotFound, match=r"'a'.*'user-42'"):
        del memory["a"]
    assert {**{item.key: item.value for item in memory.items()}} == {"b": [2]}


def test_a_stored_none_is_there(memory):
    memory.set("a", None)
    assert "a" in memory
    assert memory.get("a", "default") is None
    assert memory["a"] is None
    assert memory.setdefault("a", 1) is None
    assert memory.pop("a") is None
    assert "a" not in memory


def test_an_empty_memory_is_still_one(memory):
    assert bool(memory)
    assert len(memory) == 0


def test_pop_takes_a_value_away(memory):
    memory.set("a", 1)
    assert memory.pop("a") == 1
    assert memory.pop("a", "default") == "default"
    with pytest.raises(KeyError):
        memory.pop("a")
    with pytest.raises(InvalidInput):
        memory.pop("a", 1, 2)


def test_items_unpack_and_tell_about_themselves(memory):
    item = memory.set("a", {"n": 1}, tags=["t"], author="ann")
    key, value = item
    assert (key, value) == ("a", {"n": 1})
    assert (item.tags, item.author, item.namespace) == (("t",), "ann", "user-42")
    assert item.created_at == item.updated_at
    assert item.created_at.tzinfo is not None
    assert item.expires_at is None
    assert memory.item("a") == item


# ── what it says of itself ──


def test_reprs_say_what_it_is(memory, tmp_path: Path):
    assert repr(memory).startswith("Memory('user-42', 'sqlite:///")
    assert repr(Memory("a")).startswith("Memory('a'")
    assert "SQLiteStore(':memory:'" in repr(Memory("a", store=SQLiteStore(":memory:")))
    assert repr(memory.set("coffee", "Ethiopian Yirgacheffe")) == "Item('coffee', 'Ethiopian Yirgacheffe', version=1)"
    assert len(repr(memory.set("long", "x" * 10_000))) < 120
    assert repr(memory.conversation("t")) == "Conversation('user-42', 't')"
    assert "'hi'" in repr(memory.conversation("t").append({"role": "user", "content": "hi"}))
    memory.delete("coffee")
    assert [part in repr(memory.history("coffee")) for part in ("deleted", "Ethiopian")] == [True, True]


def test_a_repr_shows_no_password():
    """A URL may hold one; a repr ends up in logs."""
    with pytest.raises(InvalidInput) as raised:
        Memory("a", "postgresql://ann:hunter2@host/db")
    assert "hunter2" not in str(raised.value)


# ── copies ──


def test_a_memory_can_be_pickled_and_used_in_another_process(memory):
    memory.set("a", "from here")
    text = pickle.dumps(memory).hex()
    code = (
        "import pickle, sys\n"
        "memory = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "print(memory.namespace, memory.get('a'))\n"
        "memory.set('b', 'from there')\n"
    )
    assert run(code, text) == "user-42 from here\n"
    assert memory.get("b") == "from there"


def test_a_pickle_keeps_every_argument(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    for kind in (Memory, AsyncMemory):
        memory = kind("user-42", url, 5, durability="relaxed", author="ann")
        again = pickle.loads(pickle.dumps(memory))
        assert type(again) is kind
        assert (again.namespace, again.timeout, again.author) == ("user-42", 5, "ann")
        assert again._asked[:2] == (url, "relaxed")
    store = SQLiteStore(str(tmp_path / "other.db"))
    with_store = pickle.loads(pickle.dumps(Memory("a", store=store)))
    Memory("a", store=store).set("k", 1)
    assert with_store.get("k") == 1
    with_store._store.close()
    store.close()


def test_a_store_in_memory_says_that_it_cannot_be_pickled():
    with pytest.raises(TypeError, match="in memory"):
        pickle.dumps(Memory("a", store=SQLiteStore(":memory:")))


def test_a_memory_can_be_copied(memory):
    memory.set("a", 1)
    for other in (copy.copy(memory), copy.deepcopy(memory)):
        assert other.get("a") == 1
        other.close()
    assert memory.get("a") == 1


def test_a_conversation_can_be_pickled(memory):
    memory.conversation("t").append("hi")
    again: Conversation = pickle.loads(pickle.dumps(memory.conversation("t")))
    assert [message.value for message in again.messages()] == ["hi"]


def test_results_can_be_pickled(memory):
    memory.set("a", {"n": 1}, ttl=60)
    talk = memory.conversation("t")
    talk.append("x")
    for result in (
        memory.item("a"),
        memory.history("a"),
        memory.stats(),
        talk.messages(),
        talk.info(),
        memory.changes(""),
        list(memory.records()),
    ):
        assert pickle.loads(pickle.dumps(result)) == result


# ── opening and closing ──


def test_a_with_block_closes_and_the_next_use_opens_again(memory, tmp_path: Path):
    with memory as same:
        assert same is memory
        same.set("a", 1)
    assert memory.get("a") == 1
    memory.close()
    memory.close()


def test_a_with_block_lets_errors_through(memory):
    with pytest.raises(ZeroDivisionError), memory:
        raise ZeroDivisionError
    assert memory.get("a") is None


def test_memories_of_one_place_share_a_store_until_the_last_closes(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    one, two = Memory("a", url), Memory("b", url)
    one.set("k", 1)
    two.set("k", 2)
    assert one._opened() is two._opened()
    one.close()
    assert two.get("k") == 2
    two.close()
    assert one.get("k") == 1
    one.close()


def test_a_store_that_was_passed_stays_open():
    store = SQLiteStore(":memory:")
    with Memory("a", store=store) as memory:
        memory.set("k", 1)
    assert Memory("a", store=store).get("k") == 1
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        Memory("a", store=store).get("k")


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "memory.db"},
        {"url": "sqlite:/memory.db"},
        {"url": "sqlite://memory.db"},
        {"url": "sqlite:///"},
        {"url": "sqlite:///a?mode=ro"},
        {"url": "mysql://host/db"},
        {"url": ""},
        {"url": "://"},
        {"durability": "some"},
        {"author": ""},
        {"author": "a\nb"},
        {"url": "sqlite://", "base_url": "sqlite://"},
        {"url": "sqlite://", "store": object()},
        {"durability": "full", "store": object()},
        {"url": 5},
        {"url": Path("memory.db")},
        {"timeout": -1},
        {"timeout": "soon"},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_at_once(arguments):
    for kind in (Memory, AsyncMemory):
        with pytest.raises(InvalidInput):
            kind("a", **arguments)


def test_a_wrong_url_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOTWIRE_URL", "memory.db")
    with pytest.raises(InvalidInput, match=r"sqlite:///memory\.db"):
        Memory("a").get("k")


def test_the_environment_says_where_memories_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOTWIRE_URL", f"sqlite:///{tmp_path / 'env.db'}")
    with Memory("a") as memory:
        memory.set("k", 1)
    assert (tmp_path / "env.db").exists()


def test_a_key_goes_with_the_server_that_the_environment_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOTWIRE_URL", "http://localhost:8765")
    Memory("a", api_key="bw_key")
    monkeypatch.setenv("BOTWIRE_URL", "sqlite://")
    with pytest.raises(InvalidInput, match="an API key is for a server"):
        Memory("a", api_key="bw_key")


@pytest.mark.parametrize(("name", "hint"), [("BOTWIRE_URI", "BOTWIRE_URL"), ("BOTWIRE_DEBUG", "unknown")])
def test_a_variable_that_nothing_reads_is_an_error(monkeypatch: pytest.MonkeyPatch, name, hint):
    monkeypatch.setenv(name, "1")
    with pytest.raises(InvalidInput, match=hint):
        Memory("a").get("k")


# ── from many threads ──


def threads(count: int, work: Any) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def test_updates_from_many_threads_lose_nothing(memory):
    def work(number: int) -> None:
        for _ in range(20):
            memory.update("count", lambda n: (n or 0) + 1)
            memory.update("list", lambda old, number=number: [*(old or []), number])

    threads(6, work)
    assert memory.get("count") == 120
    assert sorted(memory.get("list")) == sorted(list(range(6)) * 20)


def test_increments_from_many_threads_lose_nothing(memory):
    sums = threads(6, lambda _: [memory.increment("n", 2) for _ in range(20)])
    assert memory.get("n") == 240
    assert sorted(each for some in sums for each in some) == list(range(2, 242, 2))


def test_only_one_setdefault_sets(memory):
    found = threads(8, lambda number: memory.setdefault("winner", number))
    assert len(set(found)) == 1
    assert memory.get("winner") == found[0]
    assert memory.stats().version == 1


def test_only_one_pop_gets_it(memory):
    memory.set("a", "prize")
    found = threads(8, lambda _: memory.pop("a", None))
    assert sorted(map(str, found)) == ["None"] * 7 + ["prize"]


def test_set_many_and_get_many_are_one_round_trip_each(memory):
    class Counting:
        """A store around a store, which counts."""

        def __init__(self, store: Any) -> None:
            self.store, self.calls = store, 0

        def execute(self, ops: Sequence[Any], *, request_id: str | None = None) -> list[Any]:
            self.calls += 1
            return self.store.execute(ops, request_id=request_id)  # type: ignore[no-any-return]

        def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
            raise NotImplementedError

        def close(self) -> None:
            raise NotImplementedError

    counting = Counting(SQLiteStore(":memory:"))
    counted = Memory("a", store=counting)
    counted.set_many({f"k{number}": number for number in range(50)})
    assert counted.get_many(["k7", "nope", "k3", "k7"]) == {"k7": 7, "k3": 3}
    assert list(counted.get_many(["k7", "k3"])) == ["k7", "k3"]
    assert counted.get_many([]) == {}
    assert counting.calls == 3


# ── update, increment, setdefault ──


def test_update_hands_over_none_for_what_is_not_there(memory):
    assert memory.update("n", lambda n: (n or 0) + 1).value == 1
    item = memory.update("n", lambda n: n + 1, author="ann")
    assert (item.value, item.version, item.author) == (2, 2, "ann")


def test_update_keeps_tags_and_lets_errors_through(memory):
    memory.set("a", 1, tags=["t"])
    assert memory.update("a", lambda n: n + 1).tags == ("t",)
    with pytest.raises(ZeroDivisionError):
        memory.update("a", lambda n: n / 0)
    assert memory.get("a") == 2


def test_update_tries_again_when_somebody_was_faster(memory):
    memory.set("a", 1)
    calls = []

    def change(value: int) -> int:
        calls.append(value)
        if len(calls) == 1:
            memory.set("a", 10)
        return value + 1

    assert memory.update("a", change).value == 11
    assert calls == [1, 10]


def test_update_that_always_loses_says_so_in_the_end(memory):
    def change(value: Any) -> int:
        memory.set("a", value)
        return 1

    memory.configure(history=False)
    with pytest.raises(Conflict, match="times in a row"):
        memory.update("a", change)


def test_increment_counts(memory):
    assert memory.increment("n") == 1
    assert memory.increment("n", 5) == 6
    assert memory.increment("n", -0.5) == 5.5
    assert memory.increment("m", initial=100) == 101
    for value in ("text", True, [1], {"n": 1}):
        memory.set("x", value)
        with pytest.raises(InvalidInput, match="no number"):
            memory.increment("x")
        assert memory.get("x") == value
    with pytest.raises(InvalidInput):
        memory.increment("n", float("inf"))


def test_the_author_of_a_memory_signs_what_it_writes(tmp_path: Path):
    memory = Memory("a", f"sqlite:///{tmp_path / 'memory.db'}", author="agent-7")
    memory.set("one", 1)
    memory.set_many({"two": 2})
    memory.update("three", lambda _: 3)
    memory.increment("four")
    memory.setdefault("five", 5)
    with memory.batch() as batch:
        batch.set("six", 6)
    assert {item.author for item in memory.items()} == {"agent-7"}
    assert memory.set("one", 2, author="ann").author == "ann"
