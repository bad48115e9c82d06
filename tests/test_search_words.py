"""What the terms of a text are, what is kept of it, and how it is shown: no store."""

# Helpers go untyped here, as tests do.
# mypy: allow-untyped-calls

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from botwire.search import documents, porter, snippet, typos, words

HOUR = 3_600_000_000
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def test_case_accents_and_width_make_no_difference():
    assert words.terms("Cafés CAFES ｃａｆｅｓ") == ["cafe", "cafe", "cafe"]
    assert words.terms("Straße") == words.terms("STRASSE")
    assert words.terms("Ёлка") == words.terms("ёлка")


def test_english_endings_and_irregular_forms_go():
    assert words.terms("connected connections") == ["connect", "connect"]
    assert len(set(words.terms("go goes going gone went"))) == 1
    assert words.terms("children") == words.terms("child")


def test_what_stands_behind_an_apostrophe_is_no_word():
    assert words.terms("Anna's dog, don’t") == ["anna", "dog", "don"]


@pytest.mark.parametrize(
    ("identifier", "queries"),
    [
        ("getUserName", ["getUserName", "getusername", "user name"]),
        ("HTTPServer", ["http", "httpserver"]),
        ("ERR_0042", ["ERR_0042", "err_0042", "0042"]),
        ("src/app/main.py", ["src/app/main.py", "main.py", "app"]),
        ("C:\\Users\\ada", ["ada", "C:\\Users\\ada"]),
        ("ada@example.org", ["ada@example.org", "example"]),
        ("550e8400-e29b-41d4", ["550e8400-e29b-41d4", "e29b"]),
        ("v1.2.3", ["v1.2.3"]),
    ],
)
def test_an_identifier_is_found_by_its_parts_and_whole(identifier, queries):
    held = set(words.terms(identifier))
    for query in queries:
        assert held & set(words.terms(query)), query
    for query in (identifier, identifier.lower()):
        assert words.whole_of(identifier) in words.terms(query), "whole, so that it counts more than its parts"


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("我昨天在东京的寿司店吃了很好吃的寿司", "寿司"),
        ("我喜欢猫", "猫"),
        ("東京タワーに行きました", "タワー"),
        ("ฉันรักแมวมาก", "แมว"),
        ("ฉันไปตลาด", "ไป"),
        ("서울에서 만나요", "서울"),
        ("मुझे हिन्दी पसंद है", "हिन्दी"),
        ("我用Python写代码", "python"),
        ("ຂ້ອຍມັກກາເຟ", "ກາເຟ"),
    ],
)
def test_words_of_scripts_without_spaces_are_found(text, query):
    asked = [term for token in words.tokens(query) for part in words.parts(token) for term in words.asked(part)]
    assert asked
    assert set(asked) <= set(words.terms(text))


def test_vowel_signs_tell_words_apart():
    assert words.terms("की") != words.terms("का")
    assert len(words.terms("हिन्दी")) == 1


@given(TEXT)
def test_terms_hold_nothing_that_an_engine_could_trip_over(text):
    for term in words.terms(text):
        assert term
        assert len(term) <= words.MAX_TERM
        assert not set(term) & set(" \t\n\"'*^():\0\\")


@given(TEXT)
def test_every_word_of_a_text_asks_for_terms_that_the_text_has(text):
    held = set(words.terms(text))
    for token in words.tokens(text):
        for part in words.parts(token):
            assert set(words.asked(part)) <= held
        assert set(words.terms(token)) <= held


@given(TEXT)
def test_terms_and_length_do_not_depend_on_what_was_seen_before(text):
    first = documents.message(text)
    documents._token.cache_clear()
    words.terms_of.cache_clear()
    words.asked.cache_clear()
    assert documents.message(text) == first


def test_an_endless_word_is_cut_and_still_found():
    assert max(map(len, words.terms("x" * 10_000))) <= words.MAX_TERM
    assert words.terms("x" * 10_000) == words.terms("X" * 10_000)
    assert max(map(len, words.tokens("a.b/" * 10_000))) < 2_000


ENDINGS = ["s", "es", "sses", "ies", "eed", "ed", "ing", "ational", "izer", "bli", "ously", "ization", "ful", "ness"]
ENDINGS += ["icate", "ative", "ement", "ment", "ent", "sion", "tion", "ion", "ate", "ize", "e", "ll", "y", "able", ""]


@given(st.text("abcdeghiklmnoprstuvwxyz", min_size=1, max_size=8), st.lists(st.sampled_from(ENDINGS), max_size=3))
def test_the_stemmer_is_that_of_sqlite(root, endings):
    same_as_sqlite(root + "".join(endings))


def same_as_sqlite(word):
    tokenize = apsw.Connection(":memory:").fts5_tokenizer("porter", ["ascii"])
    found = tokenize(word.encode(), apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False)
    assert list(found) == [(porter.stem(word),)]


@pytest.mark.parametrize(
    "word", ["relational", "hopping", "filing", "failing", "boxing", "agreed", "sky", "happily", "generalizations"]
)
def test_the_stemmer_agrees_with_sqlite_on_each_of_its_steps(word):
    same_as_sqlite(word)


# ── documents ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("How are you?", documents.ASKS),
        ("How are you? [shares a photo of a cat]", documents.ASKS),
        ("How? I don’t know.", documents.FIRST_PERSON),
        ("I’m here", documents.FIRST_PERSON),
        ("She left yesterday", documents.TELLS_TIME),
        ("The best of 1999", documents.TELLS_TIME),
        ("Hi Kim", 0),
        ("", 0),
    ],
)
def test_a_message_has_traits(text, flags):
    assert documents.message(text).flags == flags


def test_whom_a_message_calls_is_marked():
    assert "^kim" in documents.message("Thanks, Kim!").terms
    assert "^kim" in documents.message("thank you kim").terms
    assert not [term for term in documents.message("Kim is here").terms if term.startswith("^")]


def test_the_key_of_an_item_counts_as_text():
    document = documents.item("favourite/coffee_beans", "Ethiopian")
    assert {"favourit", "coffe", "bean", "ethiopian"} <= set(document.terms)
    assert document.flags == 0


def test_the_length_of_a_text_is_in_words_however_they_are_split():
    assert documents.item("a", "two words").words == 3
    assert documents.message("src/main.py").words == 3, "the whole beside the parts does not count"
    assert documents.message("東京タワー").words == 4, "neither do the single characters beside the pairs"


def test_a_session_ends_after_hours_of_silence():
    assert documents.session_after(3, 0, HOUR) == 3
    assert documents.session_after(3, 0, 5 * HOUR) == 4
    assert documents.session_after(3, 5 * HOUR, 0) == 4, "also where times run backwards"


# ── snippets ────────────────────────────────────────────────────────────────────────────────────────


def test_a_snippet_marks_every_form_of_what_was_asked():
    assert snippet("She walked; they walk", set(words.terms("walking"))) == "She «walked»; they «walk»"


def test_a_snippet_shows_the_part_with_the_most_that_was_asked():
    text = "dog " + "x " * 200 + "a dog in the park " + "y " * 200
    shown = snippet(text, {"dog", "park"}, width=40)
    assert "«dog» in the «park»" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")


def test_a_snippet_marks_words_inside_a_run_without_spaces():
    assert snippet("我昨天在东京吃了寿司", {"寿司", "东京"}) == "我昨天在«东京»吃了«寿司»"


def test_a_snippet_without_matches_is_the_beginning():
    assert snippet("one two three", {"zebra"}) == "one two three"
    assert snippet("word " * 100, (), width=20) == "word word word word…"


@given(TEXT, st.sets(st.text(max_size=5), max_size=5), st.integers(1, 50))
def test_a_snippet_is_made_of_the_text_alone(text, terms, width):
    shown = snippet(text, terms | set(words.terms(text)[:3]), width, ("", ""))
    flat = " ".join(text.split())
    assert "".join(shown.strip("…").split()) in "".join(flat.split())


# ── typos ───────────────────────────────────────────────────────────────────────────────────────────


def in_use(*terms):
    return lambda prefix, limit: [term for term in terms if term.startswith(prefix)][:limit]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("yirgachefe", "yirgacheff"),
        ("reciev", "receiv"),
        ("cofee", "coffe"),
        ("xoffe", "coffe"),
        ("yirgahcef", "yirgacheff"),
    ],
)
def test_a_mistyped_word_is_near_to_what_was_meant(typed, meant):
    assert typos.near(typed, in_use("coffe", "tea", "receiv", "yirgacheff")) == [meant]


def test_a_short_word_or_a_number_is_taken_as_it_is():
    assert typos.near("tee", in_use("tea")) == []
    assert typos.near("err_0043", in_use("err_0042")) == []


def test_what_is_nothing_like_anything_is_near_to_nothing():
    assert typos.near("zzzzzz", in_use("coffe", "tea")) == []


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_distance_is_symmetric_and_zero_only_for_equals(a, b):
    assert typos.distance(a, b, 10) == typos.distance(b, a, 10)
    assert (typos.distance(a, b, 10) == 0) == (a == b)
    assert typos.distance(a, b, 10) <= max(len(a), len(b))
