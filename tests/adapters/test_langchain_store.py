"""LangChain's byte store on botwire: LangChain's own suites, keys of every kind, and what others have stored."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.stores import InMemoryByteStore
from langchain_tests.integration_tests import BaseStoreAsyncTests, BaseStoreSyncTests

from botwire import InvalidInput, Memory, TooLarge
from botwire.sealing import generate_key
from botwire_langchain import BotWireByteStore

_numbers = itertools.count()


class TestSync(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self, url, namespace):
        return BotWireByteStore(namespace=namespace, url=url)

    @pytest.fixture
    def three_values(self):
        return b"foo", b"\x00\xff bytes", b""


class TestAsync(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, url, namespace):
        return BotWireByteStore(namespace=namespace, url=url)

    @pytest.fixture
    def three_values(self):
        return b"foo", b"\x00\xff bytes", b""


@pytest.fixture
def store(url, namespace):
    return BotWireByteStore(namespace=namespace, url=url)


ODD = ["", " ", "%", "%%", "%25", "%u0041", "a\nb", "\x00", "\x7f\x85", "\ud83d", "a/b", "/", "ä", "🇵🇹", "a%0", "#1"]


def test_any_text_is_a_key(store):
    store.mset([(key, key.encode("utf-8", "surrogatepass")) for key in ODD])
    assert store.mget(ODD) == [key.encode("utf-8", "surrogatepass") for key in ODD]
    assert sorted(store.yield_keys()) == sorted(ODD)
    store.mdelete(["", "%", "\x00"])
    assert sorted(store.yield_keys()) == sorted(set(ODD) - {"", "%", "\x00"})


KEYS = st.text(max_size=6) | st.text("%0u/a\n", max_size=6)  # and many that look like what is written for odd ones


@given(st.dictionaries(KEYS, st.binary()), st.text("%0u/a\n", max_size=3))
def test_it_holds_what_the_store_in_memory_holds(entries, prefix):
    ours, theirs = BotWireByteStore(namespace=f"random-{next(_numbers)}", url="sqlite://"), InMemoryByteStore()
    for each in (ours, theirs):
        each.mset(list(entries.items()))
        each.mdelete(list(entries)[::3])
    assert sorted(ours.yield_keys(prefix=prefix)) == sorted(theirs.yield_keys(prefix=prefix))
    assert ours.mget(list(entries)) == theirs.mget(list(entries))


def test_of_one_key_twice_the_last_value_stays(store):
    store.mset([("a", b"1"), ("b", b"2"), ("a", b"3")])
    assert store.mget(["a", "b", "a", "c"]) == [b"3", b"2", b"3", None]


def test_a_bytearray_and_a_memoryview_are_bytes_too(store):
    store.mset([("a", bytearray(b"1")), ("b", memoryview(b"2"))])
    assert store.mget(["a", "b"]) == [b"1", b"2"]


def test_more_than_a_request_holds(store):
    keys = [f"key-{number:05}" for number in range(11_000)]
    store.mset([(key, key.encode()) for key in keys])
    assert store.mget(keys) == [key.encode() for key in keys]
    assert list(store.yield_keys()) == keys
    store.mdelete(keys[1:])
    assert list(store.yield_keys()) == keys[:1]


async def test_more_than_a_request_holds_in_an_event_loop(store):
    large = [(f"large-{number:02}", bytes([number]) * 700_000) for number in range(40)]  # 37 MB as base64
    await store.amset(large)
    assert await store.amget([key for key, _ in large]) == [value for _, value in large]
    assert [key async for key in store.ayield_keys(prefix="large-3")] == [f"large-3{digit}" for digit in range(10)]
    await store.amdelete([key for key, _ in large])
    assert [key async for key in store.ayield_keys()] == []


def test_a_value_is_not_searched_and_leaves_no_past(url, namespace):
    memory = Memory(namespace, url)
    store = BotWireByteStore(memory=memory)
    for value in (b"coffee beans", b"coffee, black"):
        store.mset([("a", value)])
    assert memory.search("Y29mZmVlIGJlYW5z coffee bytes") == []
    assert len(memory.history("a")) == 1
    assert memory["a"] == {"bytes": "Y29mZmVlLCBibGFjaw=="}


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("good", b"1"), ("a", "text")], "value of 'a' is of type str"),
        ([("good", b"1"), ("a", None)], "value of 'a' is of type NoneType"),
        ([("good", b"1"), (5, b"x")], "key must be a str, not int"),
        ([("good", b"1"), ("x" * 600, b"x")], "limit is 512"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_set(store, pairs, words):
    with pytest.raises(InvalidInput, match=words):
        store.mset(pairs)
    assert list(store.yield_keys()) == []


def test_a_value_over_the_limit_says_so(store):
    with pytest.raises(TooLarge):
        store.mset([("a", b"x" * 800_000)])
    store.mset([("a", b"x" * 786_000)])


def test_a_text_in_the_place_of_keys_is_refused(store):
    for call in (store.mget, store.mdelete):
        with pytest.raises(InvalidInput, match=r"write \['key'\]"):
            call("key")


@pytest.mark.parametrize(
    "foreign", ["text", "dGV4dA==", None, 5, [], {}, {"bytes": "?"}, {"bytes": 5}, {"bytes": "", "x": 1}]
)
def test_what_somebody_else_has_stored_is_named_and_left_alone(url, namespace, foreign):
    memory = Memory(namespace, url)
    memory.set("coffee", foreign)
    with pytest.raises(InvalidInput, match=f"'coffee' in '{namespace}' holds no bytes"):
        BotWireByteStore(memory=memory).mget(["coffee"])
    assert memory["coffee"] == foreign


def test_an_encrypted_store(url, namespace):
    key = generate_key()
    BotWireByteStore(namespace=namespace, url=url, encryption_key=key).mset([("a", b"secret")])
    assert BotWireByteStore(namespace=namespace, url=url, encryption_key=key).mget(["a"]) == [b"secret"]
    with pytest.raises(InvalidInput, match="encryption_key"):
        BotWireByteStore(namespace=namespace, url=url).mget(["a"])


SCRIPT = """
from botwire_langchain import BotWireByteStore
store = BotWireByteStore(namespace=NAMESPACE)
print(store.mget(["a"]))
store.mset([("a", b"\\x00\\xff")])
"""


def test_the_next_process_reads_what_this_one_wrote(url, namespace, in_a_new_process):
    script = SCRIPT.replace("NAMESPACE", repr(namespace))
    assert in_a_new_process(script, BOTWIRE_URL=url) == "[None]\n"
    assert in_a_new_process(script, BOTWIRE_URL=url) == "[b'\\x00\\xff']\n"


def test_embeddings_are_cached(store):
    asked = []

    class Noting(DeterministicFakeEmbedding):
        def embed_documents(self, texts):
            asked.extend(texts)
            return super().embed_documents(texts)

    cached = CacheBackedEmbeddings.from_bytes_store(Noting(size=8), store, namespace="fake", key_encoder="sha256")
    first = cached.embed_documents(["one", "two"])
    assert cached.embed_documents(["two", "one", "three"])[:2] == first[::-1]
    assert asked == ["one", "two", "three"]
