"""An embedder adds to search, and whatever becomes of it, nothing is blocked or lost: by embedders that do as told."""

# Helpers go untyped here, as tests do.
# mypy: allow-untyped-calls

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.server.running import run, starting
from tests.stores import STORES, Clock

from botwire import AsyncMemory, EmbedderFailed, InvalidInput, Memory
from botwire.ops import Index
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore

MEANINGS = [
    ("dog", "puppy", "hound"),
    ("car", "engine", "automobile"),
    ("coffee", "espresso", "latte"),
    ("rain", "wet"),
]


class Scripted:
    """Knows a few meanings, counts what it is given, and fails or waits when told."""

    def __init__(self, name: str = "scripted", dimension: int = len(MEANINGS) + 1) -> None:
        self.name = name
        self.dimension = dimension
        self.given: list[str] = []
        self.fail: Callable[[list[str]], bool] = lambda _: False
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, texts: list[str]) -> list[list[float]]:
        assert self.gate.wait(20)
        if self.fail(texts):
            raise RuntimeError("out of order")
        self.given += texts
        return [self.vector(text) for text in texts]

    def vector(self, text: str) -> list[float]:
        found = text.lower().replace("?", "").split()
        means = [float(sum(word in found for word in words)) for words in MEANINGS]
        return [*means, 0.1, *[0.0] * self.dimension][: self.dimension]


@pytest.fixture
def embedder() -> Scripted:
    return Scripted()


@pytest.fixture(params=["file", "http"])
def store(request, tmp_path: Path):
    """A client's embedder serves a server's store just as well: texts and vectors travel."""
    store = STORES[request.param](tmp_path / "memory.db", Clock())
    yield store
    store.close()


in_a_file = pytest.mark.parametrize("store", ["file"], indirect=True)


@pytest.fixture
def memory(store, embedder) -> Memory:
    memory = Memory("user-42", store=store, embedder=embedder)
    memory.set("pet", "the hound is brown")
    memory.set("vehicle", "an old automobile")
    memory.conversation("t").append("espresso, please", id="m1")
    return memory


def found(memory, query, limit=10, **filters):
    return [hit.key or hit.message.id for hit in memory.search(query, limit, **filters)]


def eventually(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


# ── what it adds ──


def test_what_is_meant_is_found_without_a_word_in_common(memory):
    assert found(memory, "puppy", 1) == ["pet"]
    assert found(memory, "engine", 1) == ["vehicle"]
    assert found(memory, "latte", 1) == ["m1"]
    assert found(Memory("user-42", store=memory._store), "puppy") == []


def test_words_and_meaning_work_together(memory):
    memory.set("shop", "a puppy shop")
    assert set(found(memory, "puppy", 2)) == {"shop", "pet"}


def test_filters_hold_for_what_is_found_by_meaning(memory):
    memory.set("other_pet", {"text": "a dog", "city": "Rome"})
    assert found(memory, "puppy", where={"city": "Rome"}) == ["other_pet"]
    assert "m1" not in found(memory, "puppy", kinds="item")
    assert found(memory, "latte", conversation="t") == ["m1"]
    assert found(memory, "latte", conversation="u") == []


def test_a_subtree_is_searched_by_meaning(store, embedder):
    for name, text in (("acme/a", "a hound"), ("acme/b", "an automobile"), ("acme", "espresso")):
        Memory(name, store=store).set("k", text)
    memory = Memory("acme", store=store, embedder=embedder)
    hits = memory.search("puppy", 1, subtree=True)
    assert [hit.namespace for hit in hits] == ["acme/a"]
    assert Memory("acme/b", store=store).stats().unembedded == 0


def test_the_score_says_what_the_embedder_gave(memory):
    [hit] = memory.search("puppy", 1, explain=True)
    assert hit.parts is not None
    assert hit.parts["vector"] > 0


def test_each_text_is_embedded_once(memory, embedder):
    for _ in range(3):
        memory.search("puppy")
    assert sorted(embedder.given) == sorted(
        ["the hound is brown", "an old automobile", "espresso, please", *["puppy"] * 3]
    )


def test_nothing_is_asked_of_the_embedder_for_what_is_not_searched(memory, embedder):
    memory.set("secret", "a secret dog", index=False)
    memory.conversation("t").append("a secret dog", index=False)
    memory.search("puppy")
    assert not any("secret" in text for text in embedder.given)


# ── what changes ──


def test_what_was_changed_or_removed_is_not_found_by_what_it_meant(memory):
    memory.search("puppy")
    memory.set("pet", "an automobile, too")
    memory.conversation("t").edit("m1", "a wet hound")
    assert found(memory, "puppy", 1) == ["m1"]
    memory.delete("pet")
    memory.delete("vehicle")
    assert "pet" not in found(memory, "puppy")
    assert "vehicle" not in found(memory, "engine")
    memory.erase()
    assert memory.search("puppy") == []


def test_vectors_outlive_an_index_that_is_made_anew(memory, embedder):
    memory.search("puppy")
    embedder.given.clear()
    memory.execute([Index("user-42", afresh=True)])
    assert memory.stats().unembedded == 0
    assert found(memory, "puppy", 1) == ["pet"]
    assert embedder.given == ["puppy"]


def test_a_text_that_is_there_twice_keeps_its_vector_when_one_goes(memory):
    memory.set("same", "the hound is brown")
    memory.search("puppy")
    memory.delete("pet")
    assert found(memory, "puppy", 1) == ["same"]
    assert memory.stats().unembedded == 0


@in_a_file
def test_a_new_process_finds_the_vectors(memory, embedder, tmp_path):
    memory.search("puppy")
    embedder.given.clear()
    store = SQLiteStore(str(tmp_path / "memory.db"))
    assert found(Memory("user-42", store=store, embedder=embedder), "puppy", 1) == ["pet"]
    assert embedder.given == ["puppy"]
    store.close()


def test_the_only_text_is_found_by_its_meaning(store, embedder):
    memory = Memory("just one", store=store, embedder=embedder)
    memory.set("pet", "the hound is brown")
    assert found(memory, "puppy") == ["pet"]


# ── when it fails ──


def test_a_failing_embedder_loses_no_write_and_text_search_goes_on(memory, embedder, caplog):
    embedder.fail = lambda _: True
    memory.set("more", "a wet dog")
    memory.conversation("t").append("a wet hound", id="m2")
    with caplog.at_level(logging.WARNING, logger="botwire"):
        assert set(found(memory, "wet")) >= {"more", "m2"}
    assert "out of order" in caplog.text
    assert memory.stats().unembedded == 5
    embedder.fail = lambda _: False
    assert found(memory, "puppy", 1)[0] in ("pet", "more", "m2")
    assert memory.stats().unembedded == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda texts: [[1.0] * 5] * (len(texts) + 1),
        lambda texts: [[float("nan")] * 5] * len(texts),
        lambda texts: [[1.0] * (5 + place) for place, _ in enumerate(texts)],
        lambda _: "what?",
        lambda _: None,
    ],
)
def test_an_answer_that_cannot_be_used_is_a_failure(store, wrong):
    memory = Memory("user-42", store=store, embedder=wrong)
    memory.set("a", "lunch")
    assert found(memory, "lunch") == ["a"]
    assert memory._embedding is not None
    with pytest.raises(EmbedderFailed):
        memory._embedding.vectors(["a", "b"])


def test_a_slow_embedder_blocks_no_write_and_no_text_search(memory, embedder):
    embedder.gate.clear()
    answers: list[list[str]] = []
    searching = threading.Thread(target=lambda: answers.append(found(memory, "puppy", 1)))
    searching.start()
    time.sleep(0.05)
    other = Memory("user-42", store=memory._store)
    other.set("meanwhile", "lunch")
    assert found(other, "lunch") == ["meanwhile"]
    assert searching.is_alive()
    embedder.gate.set()
    searching.join(20)
    assert answers == [["pet"]]


@in_a_file
def test_a_store_that_cannot_be_written_is_searched_by_words_and_by_the_vectors_there_are(memory, embedder):
    memory.search("puppy")
    memory.set("new", "a new dog")
    from botwire.errors import StoreReadOnly

    memory._store._failure = StoreReadOnly("no more writing")  # as the store itself notes it
    assert found(memory, "puppy", 1) == ["pet"]
    assert found(memory, "new") != []


# ── much at once ──


def test_a_worker_goes_on_with_what_one_search_does_not_embed(memory, embedder):
    for number in range(150):
        memory.set(f"k{number}", f"text {number}")
    memory.search("puppy")
    eventually(lambda: memory.stats().unembedded == 0)
    eventually(lambda: not memory._embedding.worker.is_alive())
    assert len([text for text in embedder.given if text.startswith("text")]) == 150


def test_embedding_everything_goes_on_where_it_was_cut_off(memory, embedder, monkeypatch):
    monkeypatch.setattr("botwire.embedding.TRIES", ())
    for number in range(150):
        memory.set(f"k{number}", f"text {number}")
    embedder.fail = lambda _: len(embedder.given) >= 100
    with pytest.raises(EmbedderFailed):
        memory.embed()
    done = len(embedder.given)
    assert 0 < memory.stats().unembedded == 153 - done
    embedder.fail = lambda _: False
    steps: list[tuple[int, int]] = []
    assert memory.embed(progress=lambda *step: steps.append(step)) == 153 - done
    assert steps[-1] == (153 - done, 153 - done)
    assert len(embedder.given) == 153
    assert memory.embed() == 0


def test_a_failure_that_passes_is_waited_for(memory, embedder, monkeypatch):
    monkeypatch.setattr("botwire.embedding.TRIES", (0.001, 0.001))
    failures = iter([True, True, False])
    embedder.fail = lambda _: next(failures)
    assert memory.embed() == 3


def test_a_namespace_without_an_embedder_says_so(store):
    with pytest.raises(InvalidInput, match="no embedder"):
        Memory("user-42", store=store).embed()


# ── one model to a namespace ──


def test_another_model_is_an_error_that_says_what_to_do_and_text_search_works(memory):
    memory.search("puppy")
    other = Memory("user-42", store=memory._store, embedder=Scripted("another"))
    for ask in (lambda: other.search("puppy"), other.embed):
        with pytest.raises(InvalidInput, match=r"embedded by 'scripted'.*'another'.*replace"):
            ask()
    assert found(Memory("user-42", store=memory._store), "hound") == ["pet"]


def test_another_dimension_is_an_error(memory):
    memory.search("puppy")
    with pytest.raises(InvalidInput, match="5 numbers"):
        Memory("user-42", store=memory._store, embedder=Scripted(dimension=9)).search("puppy")


def test_vectors_are_replaced_on_request_and_that_goes_on_where_it_was(memory, monkeypatch):
    monkeypatch.setattr("botwire.embedding.TRIES", ())
    for number in range(150):
        memory.set(f"k{number}", f"text {number}")
    memory.embed()
    another = Scripted("another", 9)
    other = Memory("user-42", store=memory._store, embedder=another)
    another.fail = lambda _: len(another.given) > 64
    with pytest.raises(EmbedderFailed):
        other.embed(replace=True)
    assert found(Memory("user-42", store=memory._store), "hound") == ["pet"]
    left = other.stats().unembedded
    assert 0 < left < 153
    another.fail = lambda _: False
    assert other.embed(replace=True) == left
    assert found(other, "puppy", 1) == ["pet"]


# ── who has one ──


def test_who_may_only_read_searches_by_meaning_what_others_have_embedded(tmp_path, embedder):
    with starting(tmp_path) as start:
        served = start()
        made = run("--url", f"sqlite:///{tmp_path / 'memory.db'}", "keys", "create", "--name", "r", "--access", "read")
        writer = Memory("user-42", url=f"sqlite:///{tmp_path / 'memory.db'}", embedder=embedder)
        writer.set("pet", "the hound is brown")
        writer.set("drink", "one espresso")
        writer.embed()
        writer.set("vehicle", "an old automobile")
        [key] = re.findall(r"bw_[\w-]+", made.stdout)
        reader = Memory("user-42", url=served.url, api_key=key, embedder=embedder)
        assert found(reader, "puppy", 1) == ["pet"]
        assert found(reader, "engine", 1) != ["vehicle"]  # nobody has embedded it
        assert found(writer, "engine", 1) == ["vehicle"]
        assert found(reader, "engine", 1) == ["vehicle"]


@pytest.mark.parametrize("wrong", ["word2vec:x", "openai", 5, ["a"]])
def test_what_is_no_embedder_is_refused_at_once(wrong):
    with pytest.raises(InvalidInput):
        Memory("user-42", url="sqlite://", embedder=wrong)


async def test_its_async_twin_does_the_same(tmp_path, embedder):
    store = AsyncSQLiteStore(SQLiteStore(str(tmp_path / "memory.db"), durability="relaxed"))
    memory = AsyncMemory("user-42", store=store, embedder=embedder)
    await memory.set("pet", "the hound is brown")
    await memory.set("vehicle", "an automobile")
    assert [hit.key for hit in await memory.search("puppy", 1)] == ["pet"]
    for number in range(100):
        await memory.set(f"k{number}", f"text {number}")
    await memory.search("puppy")
    assert memory._embedding is not None
    await memory._embedding.worker
    assert (await memory.stats()).unembedded == 0
    embedder.fail = lambda _: True
    await memory.set("more", "lunch")
    assert [hit.key for hit in await memory.search("lunch", 1)] == ["more"]
    embedder.fail = lambda _: False
    assert await memory.embed() == 1
    assert "the hound is brown" in await memory.context("puppy", 200)
    await memory.close()
    await store.close()


def test_a_context_is_a_block_of_what_was_found(memory):
    memory.conversation("t").append("and a croissant", id="m2")
    block = memory.context("puppy", 200)
    assert "the hound is brown" in block
    assert "data" in block
    assert memory.context("espresso", 200).count("espresso, please") == 1
    assert "croissant" in memory.context("espresso", 200), "what was said around it is there"
    with pytest.raises(InvalidInput):
        memory.context("x", 0)
