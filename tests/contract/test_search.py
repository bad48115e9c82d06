"""Search: what is found, in which order, and what never is. The same over every store."""

# Helpers go untyped here, as tests do.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botwire import InvalidInput, Memory
from botwire.ops import Index, Item, Message, Put, Search


def names(hits):
    """What was found: keys, and ids of messages."""
    return [hit.key if hit.item is not None else hit.message.id for hit in hits]


def found(memory, query, limit=10, **filters):
    return names(memory.search(query, limit, **filters))


@pytest.fixture
def people(memory):
    """Some items, and a conversation between two people."""
    memory.set("coffee", "Ethiopian Yirgacheffe, black")
    memory.set("home_town", {"city": "Utrecht", "country": "the Netherlands", "since": 2019})
    memory.set("pets", ["a cat named Miso", {"dog": "Biscuit"}])
    talk = memory.conversation("phone")
    talk.append("Hi Ben! I adopted a puppy on Saturday", id="m1", author="Ann")
    talk.append("How lovely! What's its name?", id="m2", author="Ben")
    talk.append("She is called Waffles", id="m3", author="Ann")
    talk.append("We painted the kitchen green", id="m4", author="Ben")
    return memory


# ── what is found ──


def test_an_item_is_found_by_a_word_of_its_value(people):
    assert found(people, "yirgacheffe") == ["coffee"]


def test_an_item_is_found_by_its_key_in_words(people):
    assert found(people, "home town") == ["home_town"]


def test_every_string_in_a_value_is_searched(people):
    assert found(people, "Utrecht") == ["home_town"]
    assert found(people, "Netherlands") == ["home_town"]
    assert found(people, "Miso") == ["pets"]
    assert found(people, "biscuit") == ["pets"]


def test_a_message_is_found_and_what_was_said_around_it_comes_after_it(people):
    hits = people.search("who adopted a puppy?")
    assert names(hits)[0] == "m1"
    assert "m2" in names(hits)
    assert isinstance(hits[0].found, Message)
    assert hits[0].conversation == "phone"
    assert hits[0].namespace == "user-42"
    assert hits[0].value == "Hi Ben! I adopted a puppy on Saturday"


@pytest.mark.parametrize(
    "message",
    [
        "the umbrella is in the hall",
        {"role": "user", "content": "the umbrella is in the hall"},
        {"role": "user", "content": [{"type": "text", "text": "the umbrella is in the hall"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "the umbrella is in the hall"}]},
        {"type": "human", "data": {"content": "the umbrella is in the hall", "type": "human"}},
        {"type": "function_call_output", "call_id": "c1", "output": "the umbrella is in the hall"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "the umbrella is there"}]},
        {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "the umbrella is in the hall"}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"thing": "umbrella"}'}}]},
        {"speaker": "Ann", "says": {"deep": ["the umbrella is in the hall"]}},
    ],
)  # fmt: skip
def test_messages_of_every_shape_are_searched(memory, message):
    memory.conversation("t").append(message, id="m")
    assert found(memory, "umbrella") == ["m"]


def test_forms_of_a_word_find_each_other(memory):
    memory.set("a", "she went swimming with the children")
    for query in ("go", "swim", "swims", "child", "gone"):
        assert found(memory, query) == ["a"], query


def test_a_write_is_found_by_the_very_next_search(memory):
    for number in range(50):
        memory.set(f"key{number}", f"marker{number}")
        assert found(memory, f"marker{number}") == [f"key{number}"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("我们在东京塔见面", "东京塔"),
        ("明日は東京タワーに行きます", "東京タワー"),
        ("เราไปเที่ยวทะเลกัน", "ทะเล"),
        ("Über den Wölfen", "wolfen"),
        ("Привет, как дела", "привет"),
        ("call getUserName() first", "user name"),
        ("call getUserName() first", "getUserName"),
        ("it failed with ERR_0042", "err_0042"),
        ("see src/botwire/memory.py", "memory.py"),
        ("write to ada@example.com", "ada@example.com"),
    ],
)
def test_languages_and_identifiers_are_found(memory, text, query):
    memory.set("other", "nothing of the kind")
    memory.set("wanted", text)
    assert found(memory, query) == ["wanted"]


def test_a_mistyped_word_finds_its_neighbours_when_nothing_else_matches(people):
    assert found(people, "Yirgachefe") == ["coffee"]
    assert found(people, "Utrehct") == ["home_town"]


def test_what_is_not_there_is_not_found(people):
    assert people.search("zebra xylophone") == []
    assert people.search("") == []
    assert people.search("   ?!") == []
    assert Memory("nobody", store=people._store).search("coffee") == []


# ── the order ──


def test_the_same_order_over_every_store(people):
    texts = ["green tea in the morning", "tea, tea and more tea", "a pot of green tea", "coffee", "green paint"]
    for number, text in enumerate(texts):
        people.set(f"drink{number}", text)
    assert found(people, "green tea")[:5] == ["drink2", "drink0", "drink1", "drink4", "m4"]


def test_scores_fall(people):
    scores = [hit.score for hit in people.search("puppy name kitchen")]
    assert scores == sorted(scores, reverse=True)
    assert all(score > 0 for score in scores)


def test_other_namespaces_change_no_score(people):
    before = [(names([hit]), hit.score) for hit in people.search("puppy kitchen")]
    for number in range(20):
        Memory(f"other-{number}", store=people._store).set("kitchen", "kitchen puppy " * number)
    assert [(names([hit]), hit.score) for hit in people.search("puppy kitchen")] == before


def test_it_does_not_matter_when_it_was_indexed(people):
    queries = ["puppy", "what is the name", "kitchen green", "cat dog coffee", "Ann"]
    before = [[(names([hit]), hit.score) for hit in people.search(query)] for query in queries]
    people.execute([Index("user-42")])
    assert [[(names([hit]), hit.score) for hit in people.search(query)] for query in queries] == before
    people.execute([Index("user-42", afresh=True)])
    assert [[(names([hit]), hit.score) for hit in people.search(query)] for query in queries] == before


# ── what a hit shows ──


def test_a_hit_carries_its_item(people):
    [hit] = people.search("yirgacheffe")
    assert hit.item == people.item("coffee")
    assert isinstance(hit.found, Item)
    assert hit.message is None
    assert hit.text == "Ethiopian Yirgacheffe, black"
    assert hit.snippet == "Ethiopian «Yirgacheffe», black"


def test_neighbours_come_on_request(people):
    [hit] = people.search("waffles", 1, around=2)
    assert [message.id for message in hit.before] == ["m1", "m2"]
    assert [message.id for message in hit.after] == ["m4"]
    [hit] = people.search("waffles", 1)
    assert (hit.before, hit.after) == ((), ())


def test_a_score_is_explained_on_request(people):
    [hit] = people.search("yirgacheffe", explain=True)
    assert hit.parts is not None
    assert hit.parts["bm25"] > 0
    [hit] = people.search("yirgacheffe")
    assert hit.parts is None


def test_hits_travel_as_json(people):
    [page] = people.execute([Search("user-42", "puppy kitchen", around=1, explain=True)])
    assert msgspec.json.decode(msgspec.json.encode(page), type=Search.result) == page


# ── filters and limits ──


def test_a_limit_holds_and_cuts_the_same_list(people):
    for number in range(30):
        people.set(f"n{number}", f"apple {number}")
    everything = found(people, "apple", 100)
    assert len(everything) == 30
    for limit in (0, 1, 7, 29, 30, 31):
        assert found(people, "apple", limit) == everything[:limit]


def test_kinds(people):
    people.set("puppy", "toys")
    assert found(people, "puppy", kinds="item") == ["puppy"]
    assert found(people, "puppy", kinds=["message"])[0] == "m1"
    assert "puppy" not in found(people, "puppy", kinds=["message"])
    assert set(found(people, "puppy", kinds=["item", "message"])) >= {"puppy", "m1"}


def test_one_conversation(people):
    people.conversation("mail").append("about the puppy", id="x1")
    assert found(people, "puppy", conversation="mail") == ["x1"]
    assert "x1" not in found(people, "puppy", conversation="phone")
    assert found(people, "puppy", conversation="none") == []
    assert names(people.conversation("mail").search("puppy")) == ["x1"]


def test_where_filters_on_fields(memory):
    for number in range(300):
        memory.set(f"a{number}", {"text": "lunch", "city": "Rome" if number == 17 else "Oslo", "n": number})
    assert found(memory, "lunch", where={"city": {"$in": ["Rome"]}}) == ["a17"]
    assert found(memory, "lunch", where={"n": {"$lt": 2}, "city": "Oslo"}, limit=5) == found(
        memory, "lunch", where={"n": {"$in": [0, 1]}}
    )
    assert found(memory, "lunch", where={"n": {"$gt": 1_000}}) == []


def test_tags_and_authors(memory):
    memory.set("a", "lunch", tags=["x", "y"], author="ann")
    memory.set("b", "lunch", tags=["x"], author="ben")
    memory.conversation("t").append("lunch", id="m", author="ann")
    assert found(memory, "lunch", tags=["x", "y"]) == ["a"]
    assert set(found(memory, "lunch", author="ann")) == {"a", "m"}


def test_times(memory, clock):
    memory.set("old", "lunch")
    memory.conversation("t").append("lunch", id="said long ago", at=clock.ago(1_000_000))
    clock.advance(100)
    then = clock.at
    memory.set("new", "lunch")
    memory.conversation("t").append("lunch", id="m")
    assert set(found(memory, "lunch", since=then)) == {"new", "m"}
    assert set(found(memory, "lunch", until=then)) == {"old", "said long ago"}
    assert found(memory, "lunch", since=then, until=then) == []


def test_a_subtree(store):
    for name in ("acme", "acme/a", "acme/b/c", "acme2", "other"):
        Memory(name, store=store).set("k", f"lunch at {name}")
        Memory(name, store=store).conversation("t").append(f"dinner at {name}", id="m")
    top = Memory("acme", store=store)
    assert [hit.namespace for hit in top.search("lunch")] == ["acme"]
    assert {hit.namespace for hit in top.search("lunch", subtree=True)} == {"acme", "acme/a", "acme/b/c"}
    hits = top.search("dinner", subtree=True, conversation="t", around=1)
    assert {hit.namespace for hit in hits} == {"acme", "acme/a", "acme/b/c"}


def test_arguments_are_checked(memory):
    wrong: list[dict[str, Any]] = [
        {"query": 5}, {"query": "x", "limit": -1}, {"query": "x", "limit": 10_000_000}, {"query": "x", "limit": "5"},
        {"query": "x", "where": {"$eq": 1}}, {"query": "x", "kinds": ["book"]}, {"query": "x", "conversation": ""},
        {"query": "x", "around": 1_000}, {"query": "x", "tags": "t"}, {"query": "x", "author": 7},
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(InvalidInput):
            memory.search(**arguments)
    with pytest.raises(InvalidInput):
        memory.set("a", "x", index="field")
    with pytest.raises(InvalidInput):
        memory.set("a", "x", index=[""])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(),
        st.binary().map(lambda some: some.decode("utf-8", "surrogateescape")),
        st.sampled_from(['"', "a OR", "a NOT b", "NEAR(a b)", "a*", "text:b", "-- ; DROP", "a\x00b", "'" * 50]),
    )
)
def test_any_query_is_harmless(people, query):
    people.search(query)
    assert found(people, "yirgacheffe") == ["coffee"]


def test_a_long_query_counts_by_its_beginning(people):
    assert found(people, "yirgacheffe " + "and so on " * 100_000) == ["coffee"]


# ── index= ──


def test_what_is_left_out_is_not_found(memory):
    memory.set("a", "secret lunch", index=False)
    memory.conversation("t").append("secret dinner", index=False)
    assert memory.search("secret lunch dinner a") == []
    memory.set("a", "secret lunch")
    assert found(memory, "secret") == ["a"]
    memory.set("a", "secret lunch", index=False)
    assert memory.search("secret") == []


def test_only_the_named_fields_are_searched(memory):
    memory.set("a", {"title": "lunch", "body": {"text": "dinner", "note": "supper"}}, index=["title", "body.text"])
    assert found(memory, "lunch") == ["a"]
    assert found(memory, "dinner") == ["a"]
    assert memory.search("supper") == []


def test_what_is_searched_goes_with_the_item(memory, new_store):
    memory.set("a", {"x": "lunch", "y": "dinner"}, index=["x"])
    memory.conversation("t").append("lunch too", id="m", index=False)
    memory.update("a", lambda value: {**value, "x": "brunch"})
    assert memory.search("dinner") == []
    memory.undo("a")
    assert found(memory, "lunch") == ["a"]
    assert memory.search("dinner") == []
    other = Memory("copy", store=new_store("other"))
    memory.copy_to(other)
    assert found(other, "lunch") == ["a"]
    assert other.search("dinner") == []


def test_a_namespace_can_be_left_out(memory):
    memory.set("a", "lunch")
    memory.conversation("t").append("lunch", id="m")
    assert set(found(memory, "lunch")) == {"a", "m"}
    memory.configure(index=False)
    assert memory.search("lunch") == []
    memory.set("b", "lunch", index=True)
    assert found(memory, "lunch") == ["b"]
    memory.configure(index=True)
    assert set(found(memory, "lunch")) == {"a", "b", "m"}


# ── what is gone is not found ──


@pytest.mark.parametrize("indexed", [False, True])
def test_what_was_overwritten_deleted_or_cleared_is_not_found(memory, indexed):
    def index():
        memory.search("anything")
        if indexed:
            memory.execute([Index("user-42")])

    talk = memory.conversation("t")
    for change in (
        lambda: (memory.set("a", "nothing"), talk.edit("m", "nothing")),
        lambda: (memory.delete("a"), talk.delete("m")),
        lambda: (memory.delete("a", history=False), talk.trim(keep=0)),
        lambda: (memory.set("a", "nothing", history=False), talk.redact("m")),
        lambda: (memory.delete("a"), talk.clear()),
        memory.clear,
        lambda: (memory.erase("a"), memory.erase(conversation="t")),
        memory.erase,
        lambda: (memory.pop("a"), talk.pop()),
    ):
        memory.set("a", "lunch at noon")
        talk.append("lunch was good", id="m")
        index()
        assert set(found(memory, "lunch")) == {"a", "m"}
        index()
        change()
        assert memory.search("lunch") == []
        index()
        assert memory.search("lunch") == []
        talk.delete("m")
        memory.delete("a")


@pytest.mark.parametrize("indexed", [False, True])
def test_what_has_expired_is_not_found(memory, clock, indexed):
    memory.set("a", "lunch", ttl=10)
    memory.set("b", "lunch")
    assert set(found(memory, "lunch")) == {"a", "b"}
    if indexed:
        memory.execute([Index("user-42")])
    clock.advance(10)
    assert found(memory, "lunch") == ["b"]
    assert found(memory, "lunch", 1) == ["b"]
    memory.set("c", "sweeps")
    assert found(memory, "lunch") == ["b"]


@pytest.mark.parametrize("indexed", [False, True])
def test_messages_over_their_number_or_age_are_not_found(memory, clock, indexed):
    memory.configure(messages=2, messages_max_age=100)
    talk = memory.conversation("t")
    for number in range(4):
        talk.append(f"lunch {number}", id=f"m{number}")
        memory.search("lunch")
        if indexed:
            memory.execute([Index("user-42")])
    assert set(found(memory, "lunch")) == {"m2", "m3"}
    clock.advance(101)
    assert memory.search("lunch") == []


def test_an_edited_message_is_found_by_its_new_words_in_its_old_place(people):
    people.execute([Index("user-42")])
    people.conversation("phone").edit("m2", "Congratulations! Which breed?")
    assert found(people, "breed")[0] == "m2"
    assert "m2" not in found(people, "lovely")
    [hit] = people.search("breed", 1, around=1)
    assert (hit.before[0].id, hit.after[0].id) == ("m1", "m3")


def test_a_cleared_conversation_that_begins_anew_is_found_anew(memory):
    talk = memory.conversation("t")
    talk.append("lunch", id="old")
    memory.execute([Index("user-42")])
    talk.clear()
    talk.append("dinner", id="new")
    memory.conversation("u").append("supper", id="other")
    assert memory.search("lunch") == []
    assert found(memory, "dinner") == ["new"]
    memory.execute([Index("user-42")])
    assert found(memory, "dinner") == ["new"]
    assert found(memory, "supper") == ["other"]


# ── in transactions ──


def test_a_search_in_a_batch_sees_what_was_written_before_it(memory):
    memory.set("a", "lunch")
    [_, page] = memory.execute([Put("user-42", "b", msgspec.Raw(b'"lunch"')), Search("user-42", "lunch")])
    assert set(names(page.hits)) == {"a", "b"}


def test_what_a_failed_batch_has_searched_leaves_no_trace(memory):
    memory.set("a", "lunch")
    memory.search("lunch")
    with pytest.raises(Exception, match="at version"):
        memory.execute([
            Put("user-42", "b", msgspec.Raw(b'"lunch"')), Search("user-42", "lunch"),
            Put("user-42", "a", msgspec.Raw(b"1"), None, 77),
        ])  # fmt: skip
    assert found(memory, "lunch") == ["a"]


def test_an_import_under_way_is_not_searched(memory, new_store):
    memory.set("a", "lunch")
    records = list(memory.records())
    other = Memory("copy", store=new_store("other"))
    other.execute([_load(records[:-1])])
    assert other.search("lunch") == []
    other.execute([_load(records[-1:])])
    assert found(other, "lunch") == ["a"]


def _load(records):
    from botwire.ops import Load

    return Load("copy", records)


# ── upkeep ──


def test_stats_say_how_much_is_not_indexed_yet(memory):
    assert memory.stats().unindexed == 0
    for number in range(5):
        memory.set(f"k{number}", "lunch")
    assert memory.stats().unindexed == 5
    [done] = memory.execute([Index("user-42", limit=2)])
    assert (done.done, done.left) == (2, 3)
    [done] = memory.execute([Index("user-42")])
    assert (done.done, done.left) == (3, 0)
    assert memory.stats().unindexed == 0
    memory.set("x", "dinner")
    assert memory.stats().unindexed == 1


def test_the_index_is_made_piece_by_piece_and_can_be_searched_meanwhile(memory):
    talk = memory.conversation("t")
    for number in range(40):
        memory.set(f"k{number}", f"lunch {number}")
        talk.append(f"dinner {number}", id=f"m{number}")
    while memory.execute([Index("user-42", limit=7)])[0].left:
        memory.set("k3", "lunch again")
        assert found(memory, "again") == ["k3"]
        assert found(memory, "39", kinds="message")[0] == "m39"
        assert len(found(memory, "lunch", 100)) == 40
    assert len(found(memory, "dinner", 100)) == 40


# ── every word finds what holds it ──


WORDS = st.text(
    st.characters(categories=["L", "N"], exclude_characters="ʹ"), min_size=1, max_size=12
)  # letters and digits of every script


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=6), st.booleans())
def test_every_stored_word_finds_its_item_and_after_an_erase_none_does(memory, texts, indexed):
    memory.erase()
    for number, text in enumerate(texts):
        memory.set(f"k{number}", " ".join(text))
    if indexed:
        memory.execute([Index("user-42")])
    for number, text in enumerate(texts):
        for word in text:
            assert f"k{number}" in found(memory, word, 100), word
    memory.erase("k0")
    assert all("k0" not in found(memory, word, 100) for word in texts[0])
    memory.erase()
    assert all(memory.search(word) == [] for text in texts for word in text)
