"""The ranking by itself: questions taken apart, scores and their parts, over an index in memory."""

# Helpers go untyped here, as tests do.
# mypy: allow-untyped-calls

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botwire.search import Nearest, Row, Scope, authors, dates, documents, find, finding, question, ranking, words

START = datetime(2023, 5, 8, 12, tzinfo=UTC)


class InMemory:
    """A small index of items and one conversation, for one question after another."""

    def __init__(self):
        self.counts_of = {}
        self.held = {}
        self.asked: Counter[str] = Counter()
        self.cosines = None
        self.hidden: set[int] = set()
        self._next, self._session, self._at = 1 << 32, 0, None

    def item(self, key, text):
        return self._add(1 << 62 | len(self.held), documents.item(key, text), None, None, START)

    def say(self, author, text, at=None):
        """Append a message; without a time, a minute after the one before."""
        at = at or (self._at + timedelta(minutes=1) if self._at else START)
        if self._at:
            self._session = documents.session_after(self._session, micro(self._at), micro(at))
        self._at, self._next = at, self._next + 1
        return self._add(self._next, documents.message(text), self._session, author, at)

    def _add(self, id, document, session, author, at):
        self.held[id] = Row(id, document.words, session, author, micro(at), document.flags)
        for term, count in Counter(document.terms).items():
            self.counts_of.setdefault(term, {})[id] = count
        return id

    def scope(self):
        rows = self.held.values()
        names = tuple(dict.fromkeys(row.author for row in rows if row.author))
        items = sum(row.session is None for row in rows)
        return Scope(len(rows), sum(row.words for row in rows), items, names, (2023, 2023), bool(self.hidden))

    def frequencies(self, terms):
        return {term: len(self.counts_of.get(term, ())) for term in terms}

    def postings(self, terms, *, items_only=False):
        self.asked.update(terms)
        found = {term: self.counts_of.get(term, {}) for term in terms}
        found = {
            term: {place: n for place, n in held.items() if place not in self.hidden} for term, held in found.items()
        }
        if items_only:
            found = {term: {place: n for place, n in held.items() if place >= 1 << 62} for term, held in found.items()}
        return found

    def counts(self, terms, documents):
        return {term: {place: n for place, n in self.counts_of[term].items() if place in documents} for term in terms}

    def rows(self, documents):
        return {place: self.held[place] for place in documents if place in self.held and place not in self.hidden}

    def dated(self, first, last, limit):
        return [place for place, row in self.held.items() if row.session is not None and first <= row.at < last][:limit]

    def vocabulary(self, prefix, limit):
        return sorted(term for term in self.counts_of if term.startswith(prefix))[:limit]

    def nearest(self, text, limit):
        return self.cosines and self.cosines(text)


def micro(at):
    return int(at.timestamp()) * 1_000_000


def ids(hits):
    return [hit.id for hit in hits]


@pytest.fixture
def index():
    return InMemory()


def fill(index, count=20):
    """Talk of something else, so that words are neither rare nor common."""
    for number in range(count):
        index.say("ana" if number % 2 else "bob", f"nothing of interest, number {number}")


# ── finding ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_item_is_found_by_its_key_and_by_its_text(index):
    coffee = index.item("favourite_drink", "Ethiopian coffee")
    index.item("city", "Lisbon")
    assert ids(find("which drink?", index, 5)) == [coffee]
    assert ids(find("ethiopian", index, 5)) == [coffee]


def test_items_alone_are_ranked_by_plain_bm25(index):
    texts = ["tea", "tea and more tea", "green tea from the shop at the corner", "coffee", "tea coffee"]
    held = [index.item(f"k{number}", text) for number, text in enumerate(texts)]
    terms = [ranking.Term(t, ranking.idf(5, len(index.counts_of[t])), index.counts_of[t]) for t in ("tea", "coffe")]
    scope = index.scope()
    plain = ranking.bm25(terms, index.held, scope.words / scope.documents)
    hits = find("tea coffee", index, 10)
    assert ids(hits) == sorted(held, key=lambda place: (-plain[place], -place))
    factors = {round(hit.score / plain[hit.id], 9) for hit in hits}
    assert factors == {ranking.DEFAULT.item}, "times a constant"


def test_nothing_to_find_is_no_error(index):
    assert find("anything", index, 5) == []
    index.item("a", "b")
    assert find("", index, 5) == []
    assert find("?!", index, 5) == []
    assert find("zebra", index, 5) == []
    assert find("b", index, 0) == []


def test_a_question_of_common_words_alone_is_asked_as_it_is(index):
    who = index.item("band", "The Who")
    index.item("city", "Lisbon")
    assert ids(find("the who", index, 5)) == [who]


def test_an_answer_is_found_after_its_question(index):
    fill(index)
    asked = index.say("ana", "Which instrument do you play?")
    answered = index.say("bob", "The cello, since school.")
    fill(index)
    assert set(ids(find("instrument", index, 2))) == {asked, answered}


def test_neighbours_do_not_reach_into_another_session(index):
    index.say("ana", "my cello broke")
    index.say("bob", "that is sad", START + timedelta(days=1))
    assert len(find("cello", index, 5)) == 1


def test_the_author_who_is_named_counts_more(index):
    fill(index)
    said = {
        who: index.say(who, "I adopted a dog", START + timedelta(days=day)) for day, who in [(1, "bob"), (2, "ana")]
    }
    for who, held in said.items():
        assert ids(find(f"What did {who.title()} adopt?", index, 5))[0] == held


@pytest.mark.parametrize("name", ["Samantha", "Sam", "Samanta", "Samantha's"])
def test_an_author_is_known_by_a_part_of_the_name_or_a_spelling_close_to_it(name):
    found = question.analyse(f"What did {name} say?", ("Samantha Jones", "Bob"))
    assert found.authors == {"Samantha Jones"}
    assert found.terms == tuple(words.terms("say"))
    assert found.for_embedder == "What did say?"


def test_a_word_in_use_is_no_misspelt_name():
    assert not question.analyse("Where is Camilo?", ("Camila", "Bob"), in_use=lambda word: True).authors
    assert question.analyse("Where is Camilo?", ("Camila", "Bob"), in_use=lambda word: False).authors == {"Camila"}


def test_a_nickname_is_learnt_from_whom_it_calls(index):
    fill(index)
    for _ in range(2):
        index.say("ana", "Thanks Bobby")
    mine = index.say("bob", "I adopted a dog", START + timedelta(days=1))
    index.say("ana", "I adopted a dog", START + timedelta(days=2))
    assert ids(find("What did Bobby adopt?", index, 5))[0] == mine
    assert authors.called_so({"ana": 1}, ("ana", "bob")) is None, "once is no habit"
    assert authors.called_so({"ana": 2, "bob": 2}, ("ana", "bob")) is None, "both call somebody so"


def test_the_name_of_an_author_is_text_in_an_item(index):
    fill(index)
    anas = index.item("birthday of Ana", "3 May")
    index.item("birthday of Carl", "4 May")
    assert ids(find("When is the birthday of Ana?", index, 5))[0] == anas


def test_the_name_of_an_author_is_no_word_of_a_message(index):
    fill(index)
    index.item("birthday of Ana", "3 May")
    greeting = index.say("bob", "Good day to you, Ana")
    assert greeting not in ids(find("When is the birthday of Ana?", index, 50))


def test_a_filter_does_not_change_what_words_are_worth(index):
    held = [index.item(f"k{number}", "tea coffee" if number < 3 else "tea") for number in range(9)]
    before = {hit.id: hit.score for hit in find("tea coffee", index, 10)}
    index.hidden = set(held[1:5])
    assert {hit.id: hit.score for hit in find("tea coffee", index, 10)} == pytest.approx(
        {place: score for place, score in before.items() if place not in index.hidden}
    )


def test_the_best_are_as_many_as_asked_for_also_where_all_are_equal():
    assert ranking.best(dict.fromkeys(range(10), 1.0), 3) == {9: 1.0, 8: 1.0, 7: 1.0}
    assert ranking.best({1: 3.0, 2: 1.0, 3: 2.0, 4: 1.0}, 3) == {1: 3.0, 3: 2.0, 4: 1.0}
    assert ranking.best({1: 3.0}, 3) == {1: 3.0}


def test_the_user_is_meant_by_i_where_only_roles_speak(index):
    index.say("assistant", "An adopted dog needs patience")
    mine = index.say("user", "Our adopted dog is called Rex", START + timedelta(days=1))
    assert ids(find("What is my adopted dog called?", index, 1)) == [mine]


@pytest.mark.parametrize(("authors_", "who"), [(("ana", "assistant"), {"ana"}), (("ana", "bob"), set()), ((), set())])
def test_i_means_the_only_person_who_speaks(authors_, who):
    assert question.analyse("Where did I park?", authors_).authors == who


def test_messages_of_the_day_that_is_named_are_found(index):
    fill(index)
    there = index.say("ana", "what a lovely evening", datetime(2023, 7, 3, tzinfo=UTC))
    for text in ("What happened on 3 July 2023?", "July 3", "2023-07-03", "3.7.2023"):
        assert there in ids(find(text, index, 5)), text


def test_a_date_is_found_as_text_too(index):
    fill(index)
    held = index.item("invoice", "due 2031-02-03")
    assert ids(find("2031-02-03", index, 5))[0] == held


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("in May 2023", "2023-05-01", "2023-05-31"),
        ("May 8, 2023", "2023-05-08", "2023-05-08"),
        ("the 8th of May 2023", "2023-05-08", "2023-05-08"),
        ("5/28/2023", "2023-05-28", "2023-05-28"),
        ("2024", "2024-01-01", "2024-12-31"),
        ("December 2023", "2023-12-01", "2023-12-31"),
        ("in June", "2022-06-01", "2022-06-30"),
    ],
)
def test_a_date_means_a_period(text, first, last):
    (period,) = dates.named(text, [2022])
    day = timedelta(days=1)
    assert period.start == micro(datetime.fromisoformat(first).replace(tzinfo=UTC))
    assert period.end == micro(datetime.fromisoformat(last).replace(tzinfo=UTC) + day)


@pytest.mark.parametrize("text", ["you may go", "2023-13-45", "31 February 2023", "version 3.14", "ſept 5", "room 12"])
def test_what_is_no_date_means_none(text):
    assert [period for period in dates.named(text, [2023]) if period.end - period.start <= dates.DAY] == []


def test_a_time_fits_a_day_best_and_the_days_after_it_less_and_less():
    (period,) = dates.named("8 May 2023", ())
    at = [dates.fit(period.start + days * dates.DAY, [period]) for days in (-2, -1, 0, 1, 2, 8)]
    assert at[2] == 1
    assert at[2] > at[3] > at[4] > at[5] == 0
    assert at[1] > at[0] == 0


def test_a_mistyped_word_is_found_only_where_nothing_else_matches(index):
    coffee = index.item("drink", "Yirgacheffe")
    index.item("place", "Yirgachefe street")
    assert ids(find("yirgachefe", index, 5)) == [coffee + 1], "somebody writes it so"
    assert ids(find("yirgacheffee", index, 5)) == [coffee]
    assert ids(find("yirgacheffee street", index, 5)) == [coffee + 1]


def test_the_parts_of_a_score_make_the_score(index):
    fill(index)
    index.say("ana", "Which instrument do you play?")
    index.say("bob", "I play the cello since May 2023")
    for hit in find("When did Bob play the cello in May 2023?", index, 10):
        parts = hit.parts()
        text = (parts["bm25"] + parts["neighbours"] + parts["date"]) * parts["coverage"]
        assert hit.score == pytest.approx((text + parts["session"]) * parts["prior"], rel=1e-3)


def test_a_hit_names_the_terms_that_it_holds(index):
    held = index.item("drink", "green tea")
    (hit,) = find("tea or coffee", index, 1)
    assert (hit.id, hit.terms) == (held, ("tea",))


def test_a_long_answer_begins_like_a_short_one_and_leaves_nothing_out(index):
    held = {index.item(f"key {number}", "tea " * (number % 7 + 1)) for number in range(500)}
    every = find("tea", index, 1_000)
    assert set(ids(every)) == held
    assert ids(find("tea", index, 10)) == ids(every)[:10]
    scores = [hit.score for hit in every]
    assert scores == sorted(scores, reverse=True)


# ── large scopes ────────────────────────────────────────────────────────────────────────────────────


def test_common_words_score_but_are_not_read_where_there_are_many_documents(index, monkeypatch):
    monkeypatch.setattr(finding, "SMALL", 50)
    monkeypatch.setattr(finding, "BUDGET", 20)
    for number in range(100):
        index.item(f"k{number}", "common filler" if number % 2 else "other filler")
    rare = [index.item("a", "rare other"), index.item("b", "rare common"), index.item("c", "rare filler words")]
    hits = find("rare common", index, 10)
    assert "common" not in index.asked
    assert ids(hits)[0] == rare[1], "it holds the common word, too"
    assert hits[0].terms == ("rare", "common")
    assert set(ids(hits)) == set(rare)
    assert find("common", index, 10), "alone it is read"


def test_the_ranking_of_a_large_scope_is_that_of_a_small_one(index, monkeypatch):
    for number in range(60):
        index.say("ana" if number % 3 else "bob", f"we spoke of topic{number % 7} and topic{number % 5}")
    small = find("topic1 topic2", index, 20)
    monkeypatch.setattr(finding, "SMALL", 1)
    assert ids(find("topic1 topic2", index, 20)) == ids(small)


# ── with an embedder ────────────────────────────────────────────────────────────────────────────────


def test_what_is_near_in_meaning_is_found_without_a_common_word(index):
    fill(index)
    dog = index.say("ana", "Rex barks all night", START + timedelta(days=1))
    index.cosines = lambda text: Nearest({dog: 0.8}, 0.1)
    (hit, *_) = find("pets", index, 3)
    assert hit.id == dog
    assert hit.vector == pytest.approx(ranking.DEFAULT.vector)


def test_text_and_meaning_add_up(index):
    fill(index)
    both = index.say("ana", "my dog barks", START + timedelta(days=1))
    text = index.say("ana", "my dog sleeps", START + timedelta(days=2))
    index.cosines = lambda text: Nearest({both: 0.9, index._next - 5: 0.4}, 0.1)
    assert ids(find("dog", index, 2)) == [both, text]


def test_an_answer_to_a_question_that_is_near_is_near_itself(index):
    asked = index.say("ana", "Do you keep pets?")
    answered = index.say("bob", "Yes, Rex")
    other = index.say("ana", "Nice", START + timedelta(days=1))
    index.cosines = lambda text: Nearest({asked: 0.9, answered: 0.2, other: 0.2}, 0.1)
    assert ids(find("animals", index, 3)) == [asked, answered, other]
    parts = {hit.id: hit.vector for hit in find("animals", index, 3)}
    assert parts[answered] > 2 * parts[other] > 0


def test_a_question_for_the_embedder_is_without_the_authors(index):
    fill(index)
    seen: list[str] = []
    index.cosines = seen.append
    find("What is Ana's dog called?", index, 3)
    assert seen == ["What is dog called?"]


def test_cosines_all_alike_say_nothing(index):
    held = index.item("a", "dog")
    index.item("b", "cat")
    index.cosines = lambda text: Nearest({held: 0.5, held + 1: 0.5}, 0.5)
    assert ids(find("dog", index, 5)) == [held]


# ── anything ────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=300))
def test_any_question_is_harmless(text):
    index = InMemory()
    index.item("a", "tea")
    index.say("ana", "May I have tea in May 2023?")
    index.say("bob", "Sure")
    hits = find(text, index, 3)
    assert len(hits) <= 3
    assert all(hit.score > 0 for hit in hits)


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=8))
def test_every_word_finds_its_document(texts):
    index = InMemory()
    held = [index.item("", text) if number % 2 else index.say("ana", text) for number, text in enumerate(texts)]
    for place, text in zip(held, texts, strict=True):
        for token in words.tokens(text):
            assert place in ids(find(token, index, 100)), token
