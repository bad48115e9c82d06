"""Who may do what: the rule over ops that stands before every door."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.samples import everything, kinds, sample

from botwire import ops
from botwire.errors import AccessDenied, BotWireError
from botwire.ops import Configure, Load, NamespaceRecord, Policy
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from botwire_server import Settings, guard
from botwire_server.guard import LIMITS, LOCAL, ORDER, Principal
from botwire_server.service import Service


def key(access: ops.Access = "admin", scope: str = "acme") -> Principal:
    return Principal("0123456789ab", "a key", access, scope)


def is_allowed(principal: Principal, *asked: ops.Op) -> bool:
    try:
        guard.check(principal, asked)
    except AccessDenied:
        return False
    return True


# ── access ──


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("access", ORDER)
def test_a_key_allows_the_ops_of_its_access_and_of_those_below(kind, access):
    assert is_allowed(key(access), sample(kind, "acme")) == (ORDER[kind.access] <= ORDER[access])


def test_what_destroys_imports_or_configures_is_for_admins():
    assert {kind.__name__ for kind in kinds() if kind.access == "admin"} == {"Erase", "Configure", "Load"}


def test_of_a_batch_every_op_must_be_allowed():
    assert is_allowed(key("write"), ops.Get("acme", "k"), ops.Put("acme", "k", msgspec.Raw(b"1")))
    assert not is_allowed(key("write"), ops.Get("acme", "k"), ops.Get("other", "k"))
    assert not is_allowed(key("write"), ops.Get("acme", "k"), ops.Erase("acme"))


# ── reach ──

OUTSIDE = [
    "ab",
    "A",
    "b",
    "b/a",
    "a-b",
    "a b",
    "a ",
    " a",
    "a.b",
    "a\\b",
    "a%2Fb",
    "a／b",  # full-width solidus
    "a∕b",  # division slash
    "а",  # Cyrillic
    "а/b",
    "ａ",
    "a\u200b",
    "a\u0301",
    "../a",
    "b/../a",
    ".",
    "..",
    "",
]


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("namespace", ["a", "a/b", "a/b/c", "a/..", "a/.hidden", "a/ａ"])
def test_a_scope_is_its_namespace_and_all_below(kind, namespace):
    assert is_allowed(key(scope="a"), sample(kind, namespace))


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("namespace", OUTSIDE)
def test_a_scope_is_nothing_else_however_alike_it_looks(kind, namespace):
    try:
        op = sample(kind, namespace)
    except BotWireError:
        return  # no op at all
    assert not is_allowed(key(scope="a"), op)


@pytest.mark.parametrize("kind", kinds())
def test_two_spellings_of_one_letter_are_two_namespaces(kind):
    composed, decomposed = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    assert not is_allowed(key(scope=composed), sample(kind, decomposed))
    assert not is_allowed(key(scope=decomposed), sample(kind, composed))


@pytest.mark.parametrize("above", ["", "acme", "acme/eu"])
def test_a_subtree_is_out_of_reach_for_a_key_further_down(above):
    inner = key(scope="acme/eu/user-42")
    for kind in kinds():
        try:
            op = sample(kind, above)
        except BotWireError:
            continue  # the whole store is no place for this op
        assert not is_allowed(inner, op)


levels = st.text(st.sampled_from("ab/.A"), min_size=1, max_size=8).filter(
    lambda name: "" not in name.split("/") and not name.startswith(".")
)


@given(scope=levels, namespace=levels)
def test_reach_goes_by_levels(scope, namespace):
    inside = namespace.split("/")[: scope.count("/") + 1] == scope.split("/")
    assert guard.allows(key(scope=scope), namespace) == inside


def test_an_op_names_one_namespace_and_its_field_is_called_so():
    """The guard looks at `namespace`. An op with a second one must be thought about here."""
    for kind in kinds():
        fields = {field for field in kind.__struct_fields__ if "namespace" in field or field in ("source", "target")}
        assert fields == {"namespace"}, kind


# ── botwire's own ──

HIDDEN = [".botwire/keys", ".botwire/audit/acme", ".botwire", ".other", ".botwire/refusals"]


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("namespace", HIDDEN)
def test_hidden_namespaces_are_for_admins_of_the_whole_store(kind, namespace):
    op = sample(kind, namespace)
    assert is_allowed(key("admin", ""), op)
    assert is_allowed(LOCAL, op)
    assert not is_allowed(key("write", ""), op)
    assert not is_allowed(key("read", ""), op)
    assert not is_allowed(key("admin", "acme"), op)


@pytest.mark.parametrize("kind", kinds())
def test_no_scope_opens_a_hidden_namespace(kind):
    assert not is_allowed(key("admin", ".botwire"), sample(kind, ".botwire/keys"))
    assert not is_allowed(key("admin", ".botwire/keys"), sample(kind, ".botwire/keys"))


# ── limits ──


@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize("value", [0, 5, 2**50])
def test_an_admin_of_a_part_does_not_set_its_own_limits(field, value):
    if field == "max_value_bytes" and not value:
        return  # no policy at all
    policy = Policy(**{field: value})
    inside = Load("acme/x", [NamespaceRecord(1, 1, 1, policy=policy)])
    assert not is_allowed(key(), Configure("acme", policy))
    assert not is_allowed(key(), Configure("acme/user-42", policy))
    assert not is_allowed(key(), inside)
    assert not is_allowed(key(), ops.Get("acme", "k"), Configure("acme", policy))
    assert not is_allowed(key(), Load("acme/x", [ops.EndRecord(1, 0, 0), *inside.records]))
    assert is_allowed(key("admin", ""), Configure("acme", policy), inside)


def test_an_admin_of_a_part_says_what_is_kept_there():
    kept = Policy(history=3, max_age=60.0, feed=10, feed_max_age=60.0, messages=5, messages_max_age=60.0, index=False)
    assert is_allowed(key(), Configure("acme", kept), Load("acme/x", [NamespaceRecord(1, 1, 1, policy=kept)]))


def test_every_field_of_a_policy_is_either_a_limit_or_a_way_to_keep():
    kept = {"history", "max_age", "feed", "feed_max_age", "messages", "messages_max_age", "index"}
    assert set(Policy.__struct_fields__) == kept | set(LIMITS), "a new field: who may set it?"


def test_the_policy_of_the_store_is_for_admins_of_the_whole_store():
    assert not is_allowed(key(), Configure("", Policy(history=3)))
    assert is_allowed(key("admin", ""), Configure("", Policy(history=3)))


# ── errors tell nothing ──


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    store = AsyncSQLiteStore(SQLiteStore(str(tmp_path / "memory.db"), durability="relaxed"))
    made = Service(store, Settings())
    await made.start()
    yield made
    await made.stop()
    await store.close()


async def test_a_refusal_is_the_same_whether_something_is_there_or_not(service):
    stranger = key("admin", "stranger")
    answers: list[list[str]] = []
    for _ in range(2):
        told = []
        for op in everything("victim"):
            with pytest.raises(AccessDenied) as error:
                await service.execute(stranger, [op])
            told.append(str(error.value))
        with pytest.raises(AccessDenied) as error:
            await service.wait(stranger, "victim", "v0", 0.1)
        answers.append([*told, str(error.value)])
        await service.execute(LOCAL, [ops.Put("victim", "k", msgspec.Raw(b'"secret"'))])
    assert answers[0] == answers[1]


async def test_a_refused_batch_does_nothing_of_itself(service):
    with pytest.raises(AccessDenied):
        await service.execute(key("write"), [ops.Put("acme", "k", msgspec.Raw(b"1")), ops.Get("other", "k")])
    assert await service.execute(LOCAL, [ops.Get("acme", "k")]) == [None]


async def test_a_look_at_the_whole_store_shows_none_of_botwires_own(service):
    put = ops.Put(".botwire/keys", "0123456789ab", msgspec.Raw(b'"hidden-secret"'))
    await service.execute(LOCAL, [put, ops.Append(".botwire/audit/x", "hidden-talk", [])])
    whole_store = key("read", "")
    for op in (
        ops.Scan("", subtree=True),
        ops.Changes("", "", subtree=True),
        ops.Namespaces(""),
        ops.Conversations("", subtree=True),
        ops.Describe(""),
    ):
        [found] = await service.execute(whole_store, [op])
        assert b"hidden" not in msgspec.json.encode(found)
        assert b".botwire" not in msgspec.json.encode(found)
    [about] = await service.execute(whole_store, [ops.Describe("")])
    assert about.items == 0


async def test_the_request_ids_of_two_keys_are_apart(service):
    one, two = Principal("aaaaaaaaaaaa", "one", "write", "acme"), Principal("bbbbbbbbbbbb", "two", "write", "acme")
    [first] = await service.execute(one, [ops.Put("acme", "k", msgspec.Raw(b"1"))], "r1")
    [second] = await service.execute(two, [ops.Put("acme", "k", msgspec.Raw(b"2"))], "r1")
    assert second.version == first.version + 1


# ── what the docs say ──


def test_the_table_of_the_docs_is_what_the_ops_say():
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
    for access in ORDER:
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{access}` | ")]
        named = set(re.findall(r"[A-Z][a-z]+", line))
        assert named == {kind.__name__ for kind in kinds() if kind.access == access}
