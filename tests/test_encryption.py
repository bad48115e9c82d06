"""An encrypted memory behaves as any other, and the store below it sees only ciphertext.

The contract tests run over encrypted stores too; here is what only encryption promises: nothing readable is left
anywhere, no ciphertext passes for another, keys can be changed while others write, and mixtures are refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import inspect
import io
import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import get_args

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from botwire import AsyncMemory, BotWireError, Conflict, InvalidInput, Memory, RequestReused, StoreCorrupt, TooLarge
from botwire.ops import (
    AnyOp,
    Append,
    Changes,
    Conversations,
    Delete,
    Edit,
    Erase,
    Get,
    Load,
    Messages,
    Meta,
    NewMessage,
    Put,
    Scan,
    Trim,
)
from botwire.sealing import Keyring, bound_value, generate_key, is_envelope, parse_key
from botwire.stores.encrypted import AsyncEncrypted, Encrypted, sending
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore, upkeep
from botwire.where import matches

OTHER = generate_key()
NAMES = ["ключ/🙂", "plain", "a" * 320, "%", "~", "~x", " "]

modes = pytest.mark.parametrize("hide", [False, True], ids=["visible names", "hidden names"])
one_function_store = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def key():
    return generate_key()


@pytest.fixture
def inner(tmp_path, clock):
    store = SQLiteStore(str(tmp_path / "memory.db"), durability="relaxed", clock=clock)
    yield store
    store.close()


@pytest.fixture(params=[False, True], ids=["visible names", "hidden names"])
def hide(request):
    return request.param


@pytest.fixture
def store(inner, key, hide):
    return Encrypted(inner, key, hide_keys=hide)


@pytest.fixture
def memory(store):
    return face(store)


def named(namespace, store):
    return Memory(namespace, store=store)


def face(store):
    return named("user-42", store)


def opened(inner, *keys, hide=False, namespace="user-42"):
    """A memory with these keys, which remembers nothing of what others have looked at."""
    store = Encrypted(inner, list(keys), hide_keys=hide)
    store._state.known.clear()
    return named(namespace, store)


def everything(inner, namespace="user-42"):
    """All that the store below holds of a namespace, as text."""
    return "\n".join(str(json_of(record)) for record in named(namespace, inner).records())


def json_of(record):
    return msgspec.json.encode(record).decode()


def stored(inner, memory, key):
    """The raw value of a key, as the store below has it. Names are visible."""
    return bytes(inner.execute([Get(memory.namespace, key)])[0].raw)


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────


def test_each_generated_key_is_another_and_can_be_used():
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(parse_key(key)) for key in keys} == {32}


def test_a_key_with_any_character_changed_is_no_key(key):
    for place in range(len(key)):
        for other in "A", "z", "-", " ", "=":
            changed = key[:place] + other + key[place + 1 :]
            if changed != key:
                with pytest.raises(InvalidInput) as raised:
                    Encrypted(SQLiteStore(), changed)
                assert changed[5:] not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("", "keygen"),
        ("correct horse battery staple", "password"),
        ("bwk1_", "48"),
        (b"bwk1_", "bytes"),
        (None, "NoneType"),
        (5, "int"),
        ([], "empty"),
        ((), "empty"),
        ([None], "NoneType"),
        ({"a": 1}, "dict"),
    ],
    ids=str,
)
def test_what_is_no_key_is_refused_with_a_reason(wrong, said):
    with pytest.raises(InvalidInput, match=said):
        Encrypted(SQLiteStore(), wrong)


def test_a_key_with_white_space_around_it_is_refused(key):
    for wrong in (key + "\n", " " + key, key + key):
        with pytest.raises(InvalidInput):
            Encrypted(SQLiteStore(), wrong)


def test_the_same_key_twice_is_a_mistake(key):
    with pytest.raises(InvalidInput, match="twice"):
        Encrypted(SQLiteStore(), [key, OTHER, key])


def test_no_repr_and_no_error_shows_a_key(inner, key):
    store = Encrypted(inner, [key, OTHER], hide_keys=True)
    memory = face(store)
    shown = [repr(store), str(store), repr(store._sealer.keyring), repr(store._sealer.keyring.newest), repr(memory)]
    memory.set("a", 1)
    for other in (opened(inner, generate_key()), opened(inner, generate_key(), hide=True)):
        with pytest.raises(BotWireError) as raised:
            other.get("a")
        shown.append(str(raised.value))
    for text in shown:
        assert key[5:] not in text
        assert parse_key(key).hex() not in text
        assert OTHER[5:] not in text
    assert store.key_id in repr(store)
    assert "hide_keys" in repr(store)


def test_wrappers_are_equal_when_store_keys_and_names_are(inner, key):
    assert Encrypted(inner, key) == Encrypted(inner, [key])
    assert hash(Encrypted(inner, key)) == hash(Encrypted(inner, (key,)))
    others = [
        Encrypted(inner, OTHER),
        Encrypted(inner, [key, OTHER]),
        Encrypted(inner, key, hide_keys=True),
        Encrypted(SQLiteStore(), key),
        AsyncEncrypted(inner, key),
        inner,
    ]
    assert all(Encrypted(inner, key) != other for other in others)


def test_a_wrapper_can_be_pickled(tmp_path, key):
    with_hidden = Encrypted(SQLiteStore(str(tmp_path / "a.db")), [key, OTHER], hide_keys=True)
    face(with_hidden).set("coffee", "Yirgacheffe")
    copy = pickle.loads(pickle.dumps(with_hidden))
    assert face(copy).get("coffee") == "Yirgacheffe"
    assert repr(copy) == repr(with_hidden)
    with_hidden.close()
    copy.close()


def test_without_cryptography_the_error_says_what_to_install():
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from botwire.stores.encrypted import Encrypted, generate_key\n"
        "from botwire.stores.sqlite import SQLiteStore\n"
        "key = generate_key()\n"
        "try:\n    Encrypted(SQLiteStore(), key)\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 'pip install "botwire[encryption]"' in done.stdout


def test_cryptography_is_not_imported_before_there_is_a_key():
    script = "import sys, botwire.stores.encrypted; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ── the construction ────────────────────────────────────────────────────────────────────────────────


def expand(secret, info):
    """HKDF-Expand (RFC 5869) with SHA-512, for one block."""
    return hmac.digest(secret, info + b"\x01", "sha512")


def test_an_envelope_is_what_the_documentation_says(inner, key):
    """Opened with nothing but RFC 5297, RFC 5869 and the words of `botwire.sealing`."""
    memory = opened(inner, key)
    memory.set("coffee", {"is": "Yirgacheffe"})
    envelope = json.loads(stored(inner, memory, "coffee"))
    mark, key_id, payload = envelope.split(":")
    secret = base64.urlsafe_b64decode(key[5:])[:32]
    assert base64.urlsafe_b64decode(key[5:])[32:] == hashlib.sha256(b"bwk1_" + secret).digest()[:4]
    assert mark == "bwe1"
    assert base64.urlsafe_b64decode(key_id) == expand(secret, b"botwire 1 key id")[:6]
    sealed = base64.b64decode(payload)
    nonce, text = sealed[:16], sealed[16:]
    siv = AESSIV(expand(secret, b"botwire 1 values"))
    assert json.loads(siv.decrypt(text, [b"value\0user-42\0coffee", nonce])) == {"is": "Yirgacheffe"}


def test_the_same_value_at_the_same_place_is_never_the_same_ciphertext(inner, key):
    memory = opened(inner, key)
    seen = {memory.set("a", "same") and stored(inner, memory, "a") for _ in range(200)}
    assert len(seen) == 200


def test_lengths_of_hidden_names_are_told_in_steps_only(key):
    ring = Keyring(key).newest
    lengths = [len(ring.hide("x" * size, "key")) for size in range(1, 321)]
    assert len(set(lengths)) == 7
    assert lengths == sorted(lengths)
    assert max(lengths) <= 512


@one_function_store
@given(name=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=80))
def test_hidden_names_come_back_and_differ_by_place(key, name):
    ring = Keyring(key).newest
    hidden = ring.hide(name, "key\0a")
    assert hidden == ring.hide(name, "key\0a")
    assert hidden != ring.hide(name, "key\0b")
    assert ring.unhide(hidden, "key\0a") == name
    assert ring.unhide(hidden, "key\0b") is None
    assert ring.unhide(name, "key\0a") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=12,
)


@one_function_store
@given(value=JSON, name=st.sampled_from(NAMES))
def test_every_value_and_message_comes_back_as_it_was(memory, value, name):
    memory.set(name, value, tags=["t"])
    talk = memory.conversation(name)
    talk.append(value, role="user")
    assert repr(memory.get(name)) == repr(memory.item(name).value) == repr(memory.history(name)[0].value)
    assert repr(memory.get(name)) == repr(json.loads(json.dumps(value)))
    assert repr(talk.messages(last=1)[0].value) == repr(memory.get(name))
    assert memory.get_many([name]) == {name: memory.get(name)}


# ── nothing readable is left anywhere ───────────────────────────────────────────────────────────────

MARKERS = ["Yirgacheffe-7391", "passphrase-7392", "said-7393", "edited-7394", "deleted-7395", "nested-7396"]
NAME_MARKERS = ["coffee-8391", "thread-8392", "message-8393"]


def fill(memory):
    """Writes every marker, by every way there is to write."""
    name, thread, message = NAME_MARKERS
    memory.set(name, "Yirgacheffe-7391")
    memory.set(name, {"list": ["passphrase-7392", {"nested-7396": 1}]}, ttl=3_600)
    memory.set(f"{name}/b", "deleted-7395")
    memory.delete(f"{name}/b")
    memory.set_many({f"{name}/{number}": f"Yirgacheffe-7391 {number}" for number in range(300)})
    memory.update(name, lambda old: [old, "nested-7396"])
    memory.undo(name)
    with memory.batch() as batch:
        batch.set(f"{name}/c", "passphrase-7392")
        batch.append(thread, {"role": "user", "content": "said-7393"})
    talk = memory.conversation(thread)
    talk.append("said-7393", id=message)
    talk.edit(message, "edited-7394")
    talk.extend(["said-7393", "said-7393"])
    talk.redact(talk.append("deleted-7395"), "edited-7394")


def holding(paths, markers):
    """Which of the markers stand in which files."""
    texts = {path.name: path.read_bytes() for path in paths}
    return {(name, marker) for name, text in texts.items() for marker in markers if marker.encode() in text}


@modes
def test_files_backups_and_exports_hold_only_ciphertext(tmp_path, key, hide):
    path = tmp_path / "store" / "memory.db"
    path.parent.mkdir()
    inner = SQLiteStore(str(path))
    memory = face(Encrypted(inner, key, hide_keys=hide))
    fill(memory)
    upkeep.backup(path, tmp_path / "backup.db")
    memory.export(tmp_path / "export.jsonl")
    memory.copy_to(named("copy", Encrypted(inner, OTHER, hide_keys=hide)))
    files = [*path.parent.iterdir(), tmp_path / "backup.db", tmp_path / "export.jsonl"]
    assert path.with_name("memory.db-wal") in files
    inner_files = [file for file in files if file.is_file()]
    assert holding(inner_files, MARKERS) == set()
    told = {marker for _, marker in holding(inner_files, NAME_MARKERS)}
    assert told == (set() if hide else set(NAME_MARKERS))
    inner.close()
    assert holding([path], MARKERS) == set()
    assert path.stat().st_size > 50_000


def test_the_greps_above_find_what_is_not_encrypted(tmp_path):
    inner = SQLiteStore(str(tmp_path / "memory.db"))
    fill(face(inner))
    face(inner).export(tmp_path / "export.jsonl")
    found = holding([path for path in tmp_path.iterdir() if path.is_file()], MARKERS + NAME_MARKERS)
    inner.close()
    assert {marker for _, marker in found} == set(MARKERS + NAME_MARKERS)


class Listening:
    """A store that keeps what it is asked, as the wire would carry it."""

    def __init__(self, store):
        self.store = store
        self.heard = []

    def execute(self, ops, *, request_id=None):
        self.heard += [json_of(op) for op in ops]
        return self.store.execute(ops, request_id=request_id)

    def wait(self, *arguments, **more):
        return self.store.wait(*arguments, **more)

    def close(self):
        self.store.close()


def test_nothing_readable_is_sent_to_the_store_below(inner, key, hide):
    listening = Listening(inner)
    memory = face(Encrypted(listening, key, hide_keys=hide))
    fill(memory)
    list(memory.items(where={"city": "Yirgacheffe-7391"}, prefix=NAME_MARKERS[0]))
    list(memory.items(order="updated", where={"passphrase-7392": {"$exists": True}}))
    memory.copy_to(named("copy", Encrypted(listening, key, hide_keys=hide)))
    memory.erase(NAME_MARKERS[0])
    memory.erase(conversation=NAME_MARKERS[1])
    asked = "\n".join(listening.heard)
    assert [marker for marker in MARKERS if marker in asked] == []
    assert [marker for marker in NAME_MARKERS if marker in asked] == ([] if hide else NAME_MARKERS)


# ── no ciphertext passes for another ────────────────────────────────────────────────────────────────


def test_every_changed_byte_of_an_envelope_is_noticed(inner, key):
    memory = opened(inner, key)
    memory.set("a", "x" * 20)
    envelope = stored(inner, memory, "a")
    for place in range(len(envelope)):
        for flip in (1, 2, 4, 32, 128):
            changed = envelope[:place] + bytes([envelope[place] ^ flip]) + envelope[place + 1 :]
            with pytest.raises((StoreCorrupt, InvalidInput)):
                memory._opened()._sealer.open_value("user-42", "a", Raw(changed))
    assert memory.get("a") == "x" * 20


@pytest.mark.parametrize("size", [1, 2, 3])
def test_other_ways_to_write_the_same_base64_are_noticed(key, size):
    sealer = Encrypted(SQLiteStore(), key)._sealer
    envelope = bytes(sealer.keyring.newest.seal(b"1" * size, bound_value("n", "k"), b"n" * 16))
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
    for place in range(-6, -1):
        for other in alphabet:
            changed = envelope[:place] + bytes([other]) + envelope[place + 1 :]
            if changed != envelope:
                with pytest.raises(StoreCorrupt):
                    sealer.open_value("n", "k", Raw(changed))
    for changed in (envelope[:-1] + b'="', envelope[:-1] + b'\n"', envelope[:20] + b" " + envelope[20:]):
        with pytest.raises(StoreCorrupt):
            sealer.open_value("n", "k", Raw(changed))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32])
def test_cut_off_envelopes_are_noticed(key, size):
    sealer = Encrypted(SQLiteStore(), key)._sealer
    payload = base64.b64encode(b"x" * size)
    with pytest.raises(StoreCorrupt):
        sealer.open_value("n", "k", Raw(b'"bwe1:' + sealer.keyring.newest.id.encode() + b":" + payload + b'"'))


def moved(inner, source, target):
    """Put the ciphertext of one item where another one is."""
    [item] = inner.execute([Get(*source)])
    inner.execute([Put(target[0], target[1], item.raw)])


def test_a_value_moved_to_another_key_or_namespace_is_noticed(inner, key):
    memory, other = opened(inner, key), opened(inner, key, namespace="user-43")
    memory.set_many({"a": 1, "b": 2})
    other.set("a", 3)
    moved(inner, ("user-42", "a"), ("user-42", "b"))
    with pytest.raises(StoreCorrupt, match="'b' in 'user-42'"):
        memory.get("b")
    moved(inner, ("user-42", "a"), ("user-43", "a"))
    with pytest.raises(StoreCorrupt, match="'a' in 'user-43'"):
        other.get("a")
    reads = [
        lambda: memory.item("b"),
        lambda: memory.history("b"),
        lambda: list(memory.items()),
        lambda: list(memory.items(where={"x": 1})),
        lambda: list(memory.values()),
        lambda: memory.get_many(["a", "b"]),
        lambda: memory.update("b", lambda old: old),
        lambda: list(memory.records()),
        lambda: memory.copy_to(other),
        lambda: memory.undo("b"),
    ]
    for read in reads:
        with pytest.raises(StoreCorrupt):
            read()
    assert memory.get("a") == 1
    assert memory.keys() == ["a", "b"]


def test_a_value_moved_to_another_hidden_key_is_noticed(inner, key):
    memory = opened(inner, key, hide=True)
    memory.set_many({"a": 1, "b": 2})
    [page] = inner.execute([Scan("user-42")])
    first, second = [item.key for item in page.items]
    moved(inner, ("user-42", first), ("user-42", second))
    with pytest.raises(StoreCorrupt):
        memory.get_many(["a", "b"])


def test_a_hidden_name_of_another_namespace_or_kind_is_noticed(inner, key):
    memory, other = opened(inner, key, hide=True), opened(inner, key, hide=True, namespace="user-43")
    memory.set("a", 1)
    memory.conversation("t").append("x")
    other.set("b", 1)
    [item], [talk] = (
        inner.execute([Scan("user-42")])[0].items,
        inner.execute([Conversations("user-42")])[0].conversations,
    )
    inner.execute([Put("user-43", item.key, item.raw)])
    with pytest.raises(InvalidInput, match="key in 'user-43'"):
        other.keys()
    inner.execute([Put("user-42", talk.name, item.raw)])
    with pytest.raises(InvalidInput, match="key in 'user-42'"):
        memory.keys()


def rewrite_messages(inner, statement, *bindings):
    """Change messages behind everybody's back."""
    inner.open()
    inner._writer.execute(statement, bindings)


def test_messages_that_change_places_conversations_or_roles_are_noticed(inner, key, hide):
    swap = "UPDATE messages SET value = (SELECT value FROM messages m WHERE m.place != messages.place) WHERE {}"
    cases = {
        "another message": ("t", "user", swap.format("1")),
        "another conversation": ("u", "user", swap.format("1")),
        "another conversation, under the same id": ("u", "user", swap.format("1")),
        "another role": ("t", "user", "UPDATE messages SET role = 'system'"),
        "no role": ("t", "user", "UPDATE messages SET role = NULL"),
        "another id": ("t", "user", "UPDATE messages SET id = 'taken' WHERE place = (SELECT min(place) FROM messages)"),
        "no id": ("t", "user", "UPDATE messages SET id = NULL"),
    }
    for number, (case, (conversation, role, statement)) in enumerate(cases.items()):
        for given_id in (False, True):
            memory = opened(inner, key, hide=hide, namespace=f"case-{number}-{given_id}")
            second = "m1" if "same id" in case else "m2"
            memory.conversation("t").append("one", role=role, id="m1" if given_id else None)
            memory.conversation(conversation).append("two", role=role, id=second if given_id else None)
            rewrite_messages(inner, statement)
            with pytest.raises(BotWireError):
                [list(memory.conversation(name)) for name in ("t", conversation)]
            inner.execute([Erase(memory.namespace)])


def test_a_message_shown_twice_is_noticed(inner, key, hide):
    memory = opened(inner, key, hide=hide)
    talk = memory.conversation("t")
    talk.extend(["one", "two"])
    [first, second] = inner.execute([Messages("user-42", stored_name(inner, hide))])[0].messages
    rewrite_messages(inner, "DROP INDEX IF EXISTS messages_by_id")
    replay = [replace(first, version=second.version), second]

    class Replaying(Listening):
        def execute(self, ops, *, request_id=None):
            results = super().execute(ops, request_id=request_id)
            return [
                replace(result, messages=[first, replay[0]]) if isinstance(op, Messages) else result
                for op, result in zip(ops, results, strict=True)
            ]

    with pytest.raises(StoreCorrupt, match="twice"):
        list(face(Encrypted(Replaying(inner), key, hide_keys=hide)).conversation("t"))


def stored_name(inner, hide):
    """How the one conversation of the namespace is called below."""
    [talk] = inner.execute([Conversations("user-42")])[0].conversations
    return talk.name


def test_a_value_cannot_pass_for_a_message_nor_a_message_for_a_value(inner, key):
    memory = opened(inner, key)
    memory.set("t", "a value")
    memory.conversation("t").append("a message", id="t")
    [message] = inner.execute([Messages("user-42", "t")])[0].messages
    value = stored(inner, memory, "t")
    inner.execute([Put("user-42", "t", message.raw), Edit("user-42", "t", "t", Raw(value))])
    with pytest.raises(StoreCorrupt):
        memory.get("t")
    with pytest.raises(StoreCorrupt):
        memory.conversation("t").messages()


# ── mixtures are refused ────────────────────────────────────────────────────────────────────────────


def test_a_plain_value_is_not_read_as_an_encrypted_one(inner, key, hide):
    face(inner).set("coffee", "plain")
    memory = opened(inner, key, hide=hide)
    attempts = [
        lambda: memory.get("coffee"),
        lambda: memory.get("nothing"),
        lambda: memory.set("new", 1),
        lambda: memory.delete("coffee"),
        lambda: memory.touch("coffee", 5),
        lambda: memory.history("coffee"),
        lambda: memory.conversation("t").append("x"),
        lambda: list(memory.items()),
        lambda: list(memory.records()),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidInput, match=r"copy_to|copy everything"):
            attempt()
    assert inner.execute([Scan("user-42")])[0].items[0].value == "plain"
    assert memory.stats().version == 1


def test_a_plain_conversation_is_not_taken_for_an_encrypted_one(inner, key, hide):
    face(inner).conversation("t").append("plain")
    memory = opened(inner, key, hide=hide)
    for attempt in (lambda: memory.conversation("t").append("x"), memory.conversation("t").messages):
        with pytest.raises(InvalidInput, match=r"copy_to|copy everything"):
            attempt()
    assert memory.stats().messages == 1


def test_an_encrypted_value_read_without_its_key_is_an_error(inner, key):
    memory, plain = opened(inner, key), face(inner)
    memory.set("coffee", "Yirgacheffe")
    memory.conversation("t").append("hello")
    reads = [
        lambda: plain.get("coffee"),
        lambda: plain.get("coffee", type=str),
        lambda: plain["coffee"],
        lambda: plain.item("coffee").value,
        lambda: dict(plain.items()),
        lambda: plain.conversation("t").messages()[0].value,
        lambda: list(plain.items(where={"a": 1})),
    ]
    for read in reads:
        with pytest.raises(InvalidInput, match="encryption_key"):
            read()


@modes
def test_the_wrong_key_finds_nothing_silently_and_changes_nothing(inner, key, hide):
    memory = opened(inner, key, hide=hide)
    memory.set("coffee", "Yirgacheffe")
    memory.conversation("t").append("hello")
    wrong = opened(inner, OTHER, hide=hide)
    before = everything(inner)
    attempts = [
        lambda: wrong.get("coffee"),
        lambda: wrong.get("not there"),
        lambda: wrong.set("coffee", 1),
        lambda: wrong.set("new", 1),
        lambda: wrong.delete("coffee"),
        lambda: wrong.pop("coffee", None),
        lambda: wrong.setdefault("coffee", 1),
        lambda: wrong.conversation("t").append("x"),
        lambda: wrong.conversation("new").append("x"),
        wrong.conversation("t").messages,
        wrong.conversation("t").pop,
        lambda: list(wrong.items()),
        lambda: list(wrong.records()),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidInput, match=r"key|hidden"):
            attempt()
    assert everything(inner) == before
    assert memory.get("coffee") == "Yirgacheffe"


def test_the_error_for_a_missing_key_names_it_by_its_id(inner, key):
    memory = opened(inner, key)
    memory.set("coffee", 1)
    wrong = opened(inner, OTHER)
    with pytest.raises(InvalidInput, match=memory._opened().key_id) as raised:
        wrong.get("coffee")
    assert wrong._opened().key_id in str(raised.value)


def test_names_are_hidden_in_all_of_a_namespace_or_nowhere(inner, key):
    visible, hidden = opened(inner, key, namespace="visible"), opened(inner, key, hide=True, namespace="hidden")
    for memory in (visible, hidden):
        memory.set("a", 1)
    other_way = [opened(inner, key, hide=True, namespace="visible"), opened(inner, key, namespace="hidden")]
    for memory in other_way:
        for attempt in (lambda m=memory: m.get("a"), lambda m=memory: m.set("b", 1), lambda m=memory: list(m.items())):
            with pytest.raises(InvalidInput, match=r"hide_keys|hidden"):
                attempt()
    assert (visible.keys(), hidden.keys()) == (["a"], ["a"])


def test_whoever_has_no_key_can_still_count_and_erase(inner, key, hide):
    opened(inner, key, hide=hide).set_many({"a": 1, "b": 2})
    stranger = opened(inner, OTHER, hide=hide)
    assert stranger.stats().items == 2
    assert stranger.erase().items == 2
    stranger.set("a", "anew")
    assert stranger.get("a") == "anew"


def test_an_erased_namespace_may_begin_again_with_another_key(inner, key, hide):
    first, second = opened(inner, key, hide=hide), opened(inner, OTHER, hide=hide)
    first.set("a", 1)
    first.erase()
    second.set("a", 2)
    with pytest.raises(InvalidInput):
        first.get("a")
    assert second.get("a") == 2


def test_an_envelope_is_no_value(inner, key):
    memory = opened(inner, key)
    memory.set("a", 1)
    envelope = json.loads(stored(inner, memory, "a"))
    for attempt in (lambda: memory.set("b", envelope), lambda: memory.conversation("t").append(envelope)):
        with pytest.raises(InvalidInput, match="encrypted"):
            attempt()
    for nearly in ("bwe1:", "bwe1:x", envelope + "!", " " + envelope, {"a": envelope}, [envelope]):
        memory.set("b", nearly)
        assert memory.get("b") == nearly


# ── every op ────────────────────────────────────────────────────────────────────────────────────────

REFUSED = {"Search", "Index", "Unembedded", "Embed"}
FIELDS = {
    # What the wrapper knows of each op, and of what travels in one. Who adds a field decides here whether it is to be
    # encrypted, hidden, taken out, or is no secret.
    "Value": {"namespace", "key"},
    "Get": {"namespace", "key", "as_of", "as_of_time"},
    "Scan": {
        *("namespace", "prefix", "where", "tags", "author", "since", "order", "reverse", "values", "subtree"),
        *("limit", "cursor"),
    },
    "History": {"namespace", "key", "limit"},
    "Messages": {"namespace", "conversation", "after", "before", "roles", "ids", "reverse", "limit"},
    "Conversations": {"namespace", "prefix", "subtree", "limit", "cursor"},
    "Changes": {"namespace", "after", "subtree", "limit"},
    "Describe": {"namespace"},
    "Namespaces": {"namespace", "subtree", "limit", "cursor"},
    "Dump": {"namespace", "limit", "cursor", "stored"},
    "Put": {"namespace", "key", "raw", "ttl", "if_version", "meta", "history", "expires"},
    "Delete": {"namespace", "key", "if_version", "history"},
    "Touch": {"namespace", "key", "ttl", "if_version"},
    "Append": {"namespace", "conversation", "messages", "if_version"},
    "Edit": {"namespace", "conversation", "id", "raw", "role", "author", "redacted", "if_text"},
    "Trim": {"namespace", "conversation", "keep", "older_than", "ids"},
    "Clear": {"namespace", "conversation"},
    "Erase": {"namespace", "key", "conversation", "subtree"},
    "Configure": {"namespace", "policy"},
    "Load": {"namespace", "records", "origin"},
}
TRAVELLING = {
    NewMessage: {"raw", "id", "role", "author", "at", "index"},
    Meta: {"tags", "author", "restored", "index"},
}


def test_every_op_is_known_or_refused():
    for op in get_args(AnyOp):
        assert (op in sending.SENT) != (op.__name__ in REFUSED), op


def test_every_field_of_every_op_is_known():
    for op in get_args(AnyOp):
        if op.__name__ not in REFUSED:
            assert set(op.__struct_fields__) <= FIELDS[op.__name__], op
    for kind, fields in TRAVELLING.items():
        assert set(kind.__struct_fields__) <= fields, kind


def test_ciphertext_is_not_indexed(inner, memory):
    memory.set("coffee", "Ethiopian Yirgacheffe")
    memory.conversation("t").append("I moved to Lisbon")
    plain = named("user-42", inner)
    plain.set("tea", "Darjeeling")
    assert [hit.key for hit in plain.search("tea coffee bwe1 Yirgacheffe Lisbon")] == ["tea"]
    [name] = [key for key in plain.list_keys() if key != "tea"]
    assert plain.search(name) == []


def test_an_op_that_is_not_known_is_refused_before_anything_is_sent(inner, key):
    class Search(Get, frozen=True):
        pass

    class Novelty(Get, frozen=True):
        pass

    store = Encrypted(inner, key)
    for op, said in ((Search("user-42", "a"), "searched"), (Novelty("user-42", "a"), "Novelty")):
        with pytest.raises(InvalidInput, match=said):
            store.execute([Put("user-42", "a", Raw(b"1")), op])
    assert inner.execute([Get("user-42", "a")]) == [None]


def test_errors_name_things_as_their_callers_do(inner, key):
    memory = opened(inner, key, hide=True)
    memory.set("coffee", 1)
    with pytest.raises(Conflict, match="'coffee' in 'user-42'") as raised:
        memory.set("coffee", 2, if_version=99)
    assert raised.value.version == 1
    talk = memory.conversation("thread")
    talk.append("x", id="m1")
    with pytest.raises(Conflict, match=r"'m1'.*'thread'"):
        talk.append("y", id="m1")


def test_values_that_are_too_large_once_encrypted_are_refused_with_the_reason(memory):
    memory.set("a", "x" * 780_000)
    with pytest.raises(TooLarge, match="Encrypted, a value takes a third more"):
        memory.set("a", "x" * 800_000)
    assert len(memory.get("a")) == 780_000


# ── listings ────────────────────────────────────────────────────────────────────────────────────────

ROWS = st.dictionaries(
    st.text(st.sampled_from("ab/ü🙂"), min_size=1, max_size=3),
    st.fixed_dictionaries({"n": st.integers(0, 3), "tags": st.sets(st.sampled_from("xy"))}),
    max_size=12,
)
WHERE: st.SearchStrategy = st.none() | st.just({}) | st.builds(lambda n: {"n": {"$gte": n}}, st.integers(0, 4))


LISTING = st.builds(
    Scan,
    namespace=st.just("user-42"),
    prefix=st.sampled_from(["", "a", "ab", "ü", "🙂"]),
    where=WHERE,
    tags=st.sampled_from([(), ("x",), ("x", "y")]),
    order=st.sampled_from(["key", "updated"]),
    reverse=st.booleans(),
    limit=st.integers(1, 4),
    values=st.booleans(),
)


@one_function_store
@given(rows=ROWS, op=LISTING)
def test_listings_find_what_they_should_page_by_page(memory, store, clock, rows, op):
    memory.clear()
    for key, row in rows.items():
        clock.advance(1)
        memory.set(key, {"n": row["n"]}, tags=sorted(row["tags"]))
    wanted = [
        key
        for key in (sorted(rows) if op.order == "key" else rows)
        if key.startswith(op.prefix)
        and matches({"n": rows[key]["n"]}, op.where or {})
        and set(op.tags) <= rows[key]["tags"]
    ]
    found = pages(store, op, "items")
    assert [item.key for item in found] == (wanted[::-1] if op.reverse else wanted)
    assert [item.value for item in found] == [{"n": rows[item.key]["n"]} if op.values else None for item in found]


def pages(store, op, field):
    """All that a listing finds, taken page by page."""
    found = []
    while op is not None:
        [page] = store.execute([op])
        assert len(getattr(page, field)) <= op.limit
        found += getattr(page, field)
        op = None if page.cursor is None else replace(op, cursor=page.cursor)
    return found


def test_a_filter_looks_through_more_items_than_a_page_holds(memory):
    memory.set_many({f"k{number:04}": {"n": number} for number in range(1_000)})
    assert [item.key for item in memory.items(where={"n": 999})] == ["k0999"]
    assert [item.key for item in memory.items(where={"n": {"$gte": 990}}, limit=3)] == ["k0990", "k0991", "k0992"]
    assert [item.value["n"] for item in memory.items(where={"n": {"$lt": 150}}, limit=140)] == list(range(140))
    assert len(list(memory.items(where={"n": {"$gte": 1}}))) == 999


def test_a_filter_that_is_none_is_refused(memory):
    memory.set("a", 1)
    for order in ("key", "updated"):
        with pytest.raises(InvalidInput, match="operator"):
            list(memory.items(where={"a": {"$like": "x"}}, order=order))


def test_a_listing_goes_on_when_what_stood_at_its_cursor_is_gone(memory, store):
    memory.set_many({f"k{number}": {"n": 1} for number in range(9)})
    [page] = store.execute([Scan("user-42", where={"n": 1}, limit=4)])
    for item in page.items[-2:]:
        memory.delete(item.key)
    [rest] = store.execute([Scan("user-42", where={"n": 1}, limit=10, cursor=page.cursor)])
    assert [item.key for item in rest.items] == ["k4", "k5", "k6", "k7", "k8"]


def test_items_that_go_while_their_names_are_read_are_left_out(inner, key):
    class Deleting(Listening):
        def execute(self, ops, *, request_id=None):
            if isinstance(ops[0], Get):
                self.store.execute([Delete("user-42", op.key) for op in ops[:5]])
            return super().execute(ops, request_id=request_id)

    memory = opened(inner, key, hide=True)
    memory.set_many({f"k{number:03}": number for number in range(700)})
    found = dict(face(Encrypted(Deleting(inner), key, hide_keys=True)).items())
    assert list(found) == memory.keys()
    assert 600 < len(found) < 700


@pytest.mark.parametrize("values", [False, True])
def test_the_next_page_of_a_listing_knows_what_has_changed(inner, key, clock, values):
    """Hidden names are kept from one page to the next, unless something has happened."""
    memory = opened(inner, key, hide=True)
    memory.set_many({f"k{number:04}": number for number in range(1_200)})
    memory.set("k0450", "soon gone", ttl=10)
    op = Scan("user-42", limit=400, values=values)
    [first] = memory.execute([op])
    clock.advance(10)
    [second] = memory.execute([replace(op, cursor=first.cursor)])
    assert [item.key for item in second.items] == [f"k{number:04}" for number in range(400, 801) if number != 450]
    memory.set("k0900 new", 1)
    memory.delete("k0901")
    [third] = memory.execute([replace(op, cursor=second.cursor)])
    wanted = sorted({*[f"k{number:04}" for number in range(801, 1_200)], "k0900 new"} - {"k0901"})
    assert [item.key for item in third.items] == wanted[:400]


def test_all_pages_of_a_listing_read_the_names_once(inner, key):
    listening = Listening(inner)
    memory = face(Encrypted(listening, key, hide_keys=True))
    memory.set_many({f"k{number:04}": number for number in range(2_200)})
    for number in range(30):
        memory.conversation(f"t{number:02}").append("x")
    listening.heard.clear()
    assert list(memory) == [f"k{number:04}" for number in range(2_200)]
    assert [item.value for item in memory.items()] == list(range(2_200))
    assert sum('"scan"' in each for each in listening.heard) == 4  # each listing: a few with their values, then all
    assert len(pages(memory, Conversations("user-42", limit=4), "conversations")) == 30
    assert sum('"conversations"' in each for each in listening.heard) == 1


def test_listings_of_large_values_come_in_pages_that_fit(memory, store):
    for number in range(100):
        memory.set(f"{number:02}", {"n": number, "text": "x" * 740_000}, history=False)
    for where in (None, {"n": {"$gte": 0}}):
        [page] = store.execute([Scan("user-42", where=where, limit=1_000)])
        assert 10 < len(page.items) < 30
        assert page.cursor is not None
    assert [item.value["n"] for item in memory.items(where={"n": {"$gte": 5}})] == list(range(5, 100))
    assert [key for key, _ in memory.items()] == [f"{number:02}" for number in range(100)]
    with pytest.raises(TooLarge, match=r"in several batches$"):
        store.execute([Get("user-42", "00")] * 100)


def test_a_subtree_is_listed_with_its_namespaces(inner, store, hide):
    for name in ("a", "a/b", "a/c", "ab"):
        named(name, store).set_many({"y": {"in": name}, "x": {"in": name}})
        named(name, store).conversation("t2").append(name)
        named(name, store).conversation("t1").append(name)
    top = named("a", store)
    found = [(item.namespace, item.key, item.value["in"]) for item in top.items(subtree=True)]
    assert found == [(name, key, name) for name in ("a", "a/b", "a/c") for key in ("x", "y")]
    assert [item.namespace for item in top.items(subtree=True, where={"in": "a/b"})] == ["a/b", "a/b"]
    assert [item.namespace for item in top.items(subtree=True, where={"in": "a/b"}, order="updated")] == ["a/b"] * 2
    talks = [(talk.namespace, talk.name) for talk in top.conversations(subtree=True)]
    assert talks == [(name, talk) for name in ("a", "a/b", "a/c") for talk in ("t1", "t2")]
    assert {change.key for change in top.changes("", subtree=True) if change.key} == {"x", "y"}
    assert {change.conversation for change in top.changes("", subtree=True) if change.conversation} == {"t1", "t2"}


def test_conversations_are_listed_by_name(memory, store):
    names = [f"talk {number:03}" for number in range(30)] + ["other", "talk", "ü"]
    for name in names:
        memory.conversation(name).extend(["x", "y"])
    assert [talk.name for talk in memory.conversations()] == sorted(names)
    assert [talk.name for talk in memory.conversations("talk ")] == sorted(names)[1 + 1 : -1]
    found = pages(store, Conversations("user-42", "talk", limit=4), "conversations")
    assert [talk.name for talk in found] == sorted(names)[1:-1]
    assert len(memory.conversation("talk")) == 2
    assert memory.conversation("tal").info().version == 0
    assert store.execute([Conversations("user-42", limit=0)])[0].conversations == []


def test_the_exact_conversation_comes_first_and_the_rest_behind_its_cursor(inner, key):
    memory = opened(inner, key, hide=True)
    for name in ("talk", "talk 1", "talk 2"):
        memory.conversation(name).append("x")
    found = pages(memory, Conversations("user-42", "talk", limit=1), "conversations")
    assert [talk.name for talk in found] == ["talk", "talk 1", "talk 2"]


def test_with_hidden_names_a_listing_by_name_is_no_part_of_a_batch_that_writes(inner, key):
    memory = opened(inner, key, hide=True)
    memory.set("a", 1)
    for listing in (Scan("user-42"), Conversations("user-42")):
        with pytest.raises(InvalidInput, match="run it alone"):
            memory.execute([Put("user-42", "b", Raw(b"1")), listing])
    assert memory.keys() == ["a"]
    [item, page, talks] = memory.execute([Get("user-42", "a"), Scan("user-42"), Conversations("user-42")])
    assert (item.value, [each.key for each in page.items], talks.conversations) == (1, ["a"], [])
    memory.execute([Put("user-42", "b", Raw(b"1")), Scan("user-42", order="updated")])


def test_names_longer_than_can_be_hidden_are_refused(inner, key):
    memory = opened(inner, key, hide=True)
    memory.set("x" * 320, 1)
    memory.set("ü" * 160, 1)
    for name in ("x" * 321, "ü" * 161, "🙂" * 81, "x" * 512):
        for attempt in (
            lambda n=name: memory.set(n, 1),
            lambda n=name: memory.get(n),
            lambda n=name: memory.conversation(n).append(1),
            lambda n=name: memory.conversation("t").append(1, id=n),
        ):
            with pytest.raises(TooLarge, match="320"):
                attempt()
        assert memory.conversation("t").message(name) is None


# ── messages ────────────────────────────────────────────────────────────────────────────────────────


def test_messages_without_an_id_are_known_by_their_version_as_ever(memory):
    talk = memory.conversation("t")
    first, second, third = talk.extend(["one", "two", "three"])
    assert [message.id for message in talk.messages()] == [first.id, second.id, third.id] == ["#1", "#2", "#3"]
    assert talk.messages() == [first, second, third]
    assert talk.message("#2") == second
    assert talk.edit("#2", "TWO").id == "#2"
    assert talk.redact(third).value == "[redacted]"
    assert [message.value for message in talk] == ["one", "TWO", "[redacted]"]
    assert talk.delete(first)
    assert talk.pop().id == "#3"
    assert talk.delete("#99") is False
    assert talk.message("#x") is talk.message("#0") is talk.message("#9" + "9" * 30) is None
    assert [message.id for message in talk] == ["#2"]


def test_several_messages_are_named_at_once(store, memory):
    talk = memory.conversation("t")
    talk.extend(["one", "two", "three"])
    talk.append("four", id="m4")
    [page] = store.execute([Messages("user-42", "t", ids=("#1", "m4", "#3", "#77", "nobody"))])
    assert [message.value for message in page.messages] == ["one", "three", "four"]
    [removed] = store.execute([Trim("user-42", "t", ids=("#1", "m4"))])
    assert removed.messages == 2
    assert [message.value for message in talk] == ["two", "three"]


def test_ids_that_are_made_below_are_nobodys_name(memory, inner):
    talk = memory.conversation("t")
    talk.append("one")
    [below] = inner.execute([Messages("user-42", stored_name(inner, hide=True))])[0].messages
    assert talk.message(below.id) is None
    assert talk.delete(below.id) is False
    with pytest.raises(InvalidInput, match="choose another"):
        talk.append("x", id=below.id)


def test_a_message_is_appended_once_under_its_id(memory):
    talk = memory.conversation("t")
    first = talk.append("hello", id="m1", role="user")
    assert talk.append("hello", id="m1", role="user") == first
    assert talk.append("hello", id="m1", role="assistant").version == first.version
    assert len(talk) == 1
    with pytest.raises(Conflict):
        talk.append("another", id="m1", role="user")
    assert [message.role for message in talk] == ["user"]


def test_a_message_is_appended_once_also_after_the_key_was_changed(inner, key, hide):
    first = opened(inner, key, hide=hide).conversation("t").append("hello", id="m1")
    talk = opened(inner, OTHER, key, hide=hide).conversation("t")
    assert talk.append("hello", id="m1").version == first.version
    with pytest.raises(Conflict):
        talk.append("another", id="m1")
    with pytest.raises(Conflict):
        talk.extend(["x"], if_version=99)
    assert [message.value for message in talk] == ["hello"]


def test_one_append_may_hold_a_message_twice_under_one_id(memory, store):
    twice = [NewMessage(Raw(b'"x"'), id="m1")] * 2
    first, second = store.execute([Append("user-42", "t", twice)])[0]
    assert first == second
    with pytest.raises(InvalidInput, match="twice"):
        store.execute([Append("user-42", "t", [NewMessage(Raw(b'"y"'), id="m2"), NewMessage(Raw(b'"z"'), id="m2")])])
    assert len(memory.conversation("t")) == 1


def test_roles_and_token_windows_work(memory):
    talk = memory.conversation("t")
    talk.append({"role": "system", "content": "be brief"})
    talk.extend([{"role": "user", "content": "word " * 50} for _ in range(100)])
    window = talk.messages(max_tokens=300)
    assert window[0].value["content"] == "be brief"
    assert 2 <= len(window) < 20
    assert len(talk.messages(roles=["system"])) == 1


# ── the rest of what a memory does ──────────────────────────────────────────────────────────────────


def test_history_as_of_undo_and_counters_work(memory, clock):
    versions = [memory.set("a", number).version for number in range(3)]
    clock.advance(10)
    assert memory.get("a", as_of=versions[1]) == 1
    assert memory.get("a", as_of=clock.at) == 2
    assert [revision.value for revision in memory.history("a")] == [2, 1, 0]
    memory.delete("a")
    assert memory.undo("a").value == 2
    assert memory.undo("a").value == 1
    assert memory.increment("n", 5) == 5
    assert memory.increment("n") == 6
    assert memory.update("a", lambda old: [old]).value == [1]
    assert memory.setdefault("a", 9) == [1]
    assert memory.pop("n") == 6
    assert "n" not in memory
    assert len(memory) == 1


def test_expiry_and_the_feed_work(memory, clock):
    cursor = memory.cursor()
    memory.set("a", 1, ttl=10)
    memory.set("b", 2)
    memory.touch("b", timedelta(seconds=50))
    memory.conversation("t").append("x")
    assert [(change.kind, change.key or change.conversation) for change in memory.changes(cursor)] == [
        ("set", "a"), ("set", "b"), ("touched", "b"), ("appended", "t"),
    ]  # fmt: skip
    clock.advance(11)
    assert memory.get("a") is None
    assert memory.keys() == ["b"]
    memory.set("c", 3)
    assert "expired" in [change.kind for change in memory.changes(cursor)]
    clock.advance(60)
    assert dict(memory.items()) == {"c": 3}


def test_whoever_watches_is_told_by_name(memory):
    seen = []
    watch = memory.watch(timeout=20)

    def look():
        seen.append(next(watch).key)

    thread = threading.Thread(target=look)
    thread.start()
    memory.set("coffee", 1)
    thread.join()
    assert seen == ["coffee"]


def test_batches_are_all_or_nothing(memory, store):
    memory.set("a", 1)
    with pytest.raises(Conflict):
        store.execute([Put("user-42", "b", Raw(b"1")), Put("user-42", "a", Raw(b"2"), if_version=99)])
    assert memory.keys() == ["a"]
    results = store.execute([Put("user-42", "b", Raw(b"[1]")), Get("user-42", "b"), Delete("user-42", "a")])
    assert results[1].value == [1]
    assert memory.keys() == ["b"]


def test_the_same_request_twice_sends_the_same_ciphertext(store, memory, inner):
    ops = [
        Put("user-42", "a", Raw(b"1")),
        Put("user-42", "b", Raw(b"1")),
        Append("user-42", "t", [NewMessage(Raw(b'"x"')), NewMessage(Raw(b'"y"'), id="m")]),
        Edit("user-42", "t", "m", Raw(b'"z"')),
    ]
    first = store.execute(ops, request_id="r1")
    before = everything(inner)
    assert store.execute(ops, request_id="r1") == first
    assert everything(inner) == before
    assert [message.value for message in memory.conversation("t")] == ["x", "z"]
    for others in (ops[:1], [replace(ops[0], raw=Raw(b"2")), *ops[1:]], ops[::-1]):
        with pytest.raises(RequestReused):
            store.execute(others, request_id="r1")
    store.execute(ops[:1], request_id="r2")
    raws = [revision.raw for revision in inner.execute([Scan("user-42")])[0].items]
    assert len({bytes(raw) for raw in raws}) == 2


def test_loads_can_be_repeated_with_their_request_id(store, memory):
    memory.set("a", 1)
    memory.conversation("t").append("x")
    load = [Load("copy", list(memory.records()))]
    assert store.execute(load, request_id="r") == store.execute(load, request_id="r")
    assert named("copy", store).get("a") == 1


def test_threads_share_a_wrapper(memory):
    def work(number):
        for turn in range(30):
            memory.set(f"k{number}", [number, turn])
            assert memory.get(f"k{number}") == [number, turn]
            memory.increment("sum")
            memory.conversation("t").append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert memory.get("sum") == 240
    assert len(memory.conversation("t")) == 240


# ── moving ──────────────────────────────────────────────────────────────────────────────────────────


def furnish(memory, clock):
    for number in range(5):
        memory.set("a", number, tags=["t"])
        clock.advance(1)
    memory.set_many({f"k{number}": {"n": number} for number in range(30)})
    memory.delete("k3")
    memory.set("soon", 1, ttl=1_000)
    talk = memory.conversation("thread")
    talk.append({"role": "user", "content": "hi"})
    talk.append("named", id="m1", role="assistant")
    talk.edit("m1", "said-otherwise")
    memory.conversation("empty").append("x")
    memory.conversation("empty").pop()


def content(memory):
    return {
        "items": [replace(item, namespace="") for item in memory.items()],
        "histories": {key: memory.history(key) for key in memory},
        "messages": {
            talk.name: [replace(message, namespace="") for message in memory.conversation(talk.name)]
            for talk in memory.conversations()
        },
        "version": memory.stats().version,
    }


def exported(memory):
    stream = io.BytesIO()
    memory.export(stream)
    return stream.getvalue()


def test_an_export_is_imported_into_any_namespace_of_who_has_the_key(memory, store, clock, tmp_path, key, hide):
    furnish(memory, clock)
    data = exported(memory)
    other = SQLiteStore(str(tmp_path / "other.db"), clock=clock)
    targets = [
        face(Encrypted(other, key, hide_keys=hide)),
        named("elsewhere", Encrypted(other, [OTHER, key], hide_keys=hide)),
        named("visible", Encrypted(other, key)),
        named("hidden", Encrypted(other, key, hide_keys=True)),
    ]
    for target in targets:
        target.import_(io.BytesIO(data))
        assert content(target) == content(memory)
        target.set("a", "life goes on")
        assert target.undo("a").value == 4
    other.close()


def test_an_export_is_encrypted_also_through_a_wrapper_around_the_encrypted_store(store, tmp_path, hide):
    memory = face(Listening(store))
    fill(memory)
    memory.export(tmp_path / "export.jsonl")
    found = {marker for _, marker in holding([tmp_path / "export.jsonl"], MARKERS + NAME_MARKERS)}
    assert found == (set() if hide else set(NAME_MARKERS))
    copy = named("copy", Listening(store))
    copy.import_(tmp_path / "export.jsonl")
    assert content(copy) == content(memory)


def test_an_export_of_a_plain_memory_is_encrypted_when_it_is_imported(inner, memory, clock):
    plain = named("plain", inner)
    furnish(plain, clock)
    memory.import_(io.BytesIO(exported(plain)))
    assert content(memory) == content(plain)
    assert not any(b"otherwise" in bytes(raw) for raw in raws(inner, "user-42"))


def test_an_export_is_worth_nothing_without_its_key(memory, inner, clock, hide):
    furnish(memory, clock)
    stranger = opened(inner, OTHER, hide=hide, namespace="elsewhere")
    with pytest.raises(InvalidInput):
        stranger.import_(io.BytesIO(exported(memory)))
    assert stranger.stats().items == 0


def test_a_tampered_export_is_refused(memory, store, clock):
    furnish(memory, clock)
    lines = exported(memory).splitlines(keepends=True)
    [first, second, *_] = [
        place
        for place, line in enumerate(lines)
        if line.count(b"bwe1:") == 1 and b'"item"' in line and b"deleted" not in line
    ]
    record, other = json.loads(lines[first]), json.loads(lines[second])
    record["revisions"][0]["value"] = other["revisions"][0]["value"]
    lines[first] = json.dumps(record).encode() + b"\n"
    target = named("target", store)
    with pytest.raises(StoreCorrupt):
        target.import_(io.BytesIO(b"".join(lines)))
    assert target.stats().items == 0


def test_copies_go_between_namespaces_keys_and_kinds(inner, key, clock):
    plain = named("plain", inner)
    furnish(plain, clock)
    before = content(plain)
    at = plain
    kinds = [
        opened(inner, key, namespace="adopted"),
        opened(inner, OTHER, namespace="another key"),
        opened(inner, OTHER, namespace="hidden", hide=True),
        opened(inner, key, namespace="hidden too", hide=True),
        named("plain again", inner),
    ]
    for target in kinds:
        at.copy_to(target)
        assert content(target) == before
        at = target
    assert [is_envelope(raw) for raw in raws(inner, "adopted")] == [True] * len(raws(inner, "adopted"))
    assert not any(is_envelope(raw) for raw in raws(inner, "plain again"))


def raws(inner, namespace):
    """Every value, past value and message below."""
    found = []
    for record in named(namespace, inner).records():
        found += [each.raw for each in getattr(record, "revisions", []) if not each.deleted]
        found += [record.message.raw] if hasattr(record, "message") else []
    return found


def test_what_could_not_be_set_cannot_be_loaded(memory, store):
    memory.set("a", 1)
    start, item, end = list(memory.records())
    deep = Raw(b"[" * 200 + b"]" * 200)
    wrong = [
        replace(item, revisions=[replace(item.revisions[0], raw=deep)]),
        replace(item, key=""),
        replace(item, key="a\x00b"),
        replace(item, key="x" * 600),
    ]
    for each in wrong:
        with pytest.raises(InvalidInput):
            named("copy", store).load([[start, each, end]])
        assert named("copy", store).keys() == []


def test_encrypted_records_are_not_encrypted_once_more(inner, key):
    memory = opened(inner, key)
    memory.set("a", 1)
    with pytest.raises(InvalidInput, match="encrypted already"):
        opened(inner, key, namespace="copy").load([list(face(inner).records())])


# ── rotation ────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_key_encrypts_and_the_old_one_still_decrypts(inner, key, hide):
    old = opened(inner, key, hide=hide)
    old.set("a", "old")
    both = opened(inner, OTHER, key, hide=hide)
    both.set("b", "new")
    assert dict(both.items()) == {"a": "old", "b": "new"}
    assert set(both._opened().keys_in_use("user-42").values()) == {1}
    with pytest.raises(InvalidInput, match=both._opened().key_id):
        old.get("b")
    in_between = opened(inner, key, OTHER) if not hide else None
    if in_between is not None:  # the first step of a rotation: the new key can be read by all before one writes with it
        assert dict(in_between.items()) == {"a": "old", "b": "new"}


def test_rewriting_leaves_everything_under_the_newest_key(inner, key, hide, clock):
    old = opened(inner, key, hide=hide)
    furnish(old, clock)
    old.configure(max_age=60)
    both = opened(inner, OTHER, key, hide=hide)
    before = {item.key: (item.value, item.expires, item.tags, item.author) for item in both.items()}
    messages = {
        talk.name: [(m.id, m.value, m.role) for m in both.conversation(talk.name)] for talk in both.conversations()
    }
    done = both._opened().rewrite("user-42")
    assert (done.items, done.messages) == (31, 2)
    assert done.older > 0  # past values
    assert {item.key: (item.value, item.expires, item.tags, item.author) for item in both.items()} == before
    assert {
        talk.name: [(m.id, m.value, m.role) for m in both.conversation(talk.name)] for talk in both.conversations()
    } == messages
    assert both._opened().rewrite("user-42") == (0, 0, done.older)
    clock.advance(100)
    both.set("touches", "the namespace")
    assert both._opened().rewrite("user-42").older == 0
    assert set(both._opened().keys_in_use("user-42")) == {both._opened().key_id}
    if not hide:
        assert opened(inner, OTHER).get("k7") == {"n": 7}


def test_a_hidden_name_needs_the_first_key_for_ever(inner, key):
    opened(inner, key, hide=True).set("a", 1)
    opened(inner, OTHER, key, hide=True)._opened().rewrite("user-42")
    for keys in ([OTHER], [key, OTHER]):
        with pytest.raises(InvalidInput, match="last"):
            opened(inner, *keys, hide=True).get("a")
    assert opened(inner, OTHER, key, hide=True).get("a") == 1


def test_history_and_undo_reach_behind_a_rewriting(inner, key, clock):
    old = opened(inner, key)
    versions = [old.set("a", number).version for number in range(3)]
    old.touch("a", 10_000)
    old.set("b", 1)
    both = opened(inner, OTHER, key)
    both._opened().rewrite("user-42")
    assert [revision.value for revision in both.history("a")] == [2, 2, 1, 0]
    assert [both.get("a", as_of=version) for version in versions] == [0, 1, 2]
    assert both.undo("b") is None
    assert both.undo("a").value == 1
    assert both.undo("a").value == 0
    assert both.undo("a") is None


def test_what_expires_goes_on_expiring_after_a_rewriting(inner, key, clock):
    opened(inner, key).set("a", 1, ttl=100)
    both = opened(inner, OTHER, key)
    both._opened().rewrite("user-42")
    clock.advance(99)
    assert both.get("a") == 1
    clock.advance(1)
    assert both.get("a") is None


def test_a_rewriting_that_was_cut_off_goes_on_where_it_was(inner, key, monkeypatch):
    old = opened(inner, key)
    old.set_many({f"k{number:03}": number for number in range(250)})

    class Dying(Listening):
        def execute(self, ops, *, request_id=None):
            if sum("put" in each for each in self.heard) > 100:
                raise ZeroDivisionError
            return super().execute(ops, request_id=request_id)

    with pytest.raises(ZeroDivisionError):
        Encrypted(Dying(inner), [OTHER, key]).rewrite("user-42")
    both = opened(inner, OTHER, key)
    assert dict(both.items()) == {f"k{number:03}": number for number in range(250)}
    done = both._opened().rewrite("user-42")
    assert 0 < done.items < 250
    assert dict(both.items()) == {f"k{number:03}": number for number in range(250)}


def test_a_rewriting_beside_writers_loses_nothing(inner, key, hide):
    old = opened(inner, key, hide=hide)
    old.set_many({f"k{number}": 0 for number in range(20)})
    old.set("gone", 1)
    writing = threading.Event()
    stop = threading.Event()
    counts = [0] * 4

    def write(number):
        memory = opened(inner, *([OTHER, key] if number % 2 or hide else [key, OTHER]), hide=hide)
        while not stop.is_set() or not counts[number]:
            for place in range(20):
                memory.increment(f"k{place}")
            counts[number] += 1
            writing.set()

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(write, number) for number in range(4)]
        writing.wait()
        both = opened(inner, OTHER, key, hide=hide)
        for _ in range(5):
            both._opened().rewrite("user-42")
        stop.set()
        for each in done:
            each.result()
    both._opened().rewrite("user-42")
    assert [both.get(f"k{place}") for place in range(20)] == [sum(counts)] * 20
    current = [item.raw for item in inner.execute([Scan("user-42", limit=1_000)])[0].items]
    assert not any(both._opened()._sealer.is_old(raw) for raw in current)


def test_a_deletion_beside_a_rewriting_stays_one(inner, key):
    opened(inner, key).set_many({"a": 1, "b": 2})

    class Racing(Listening):
        def execute(self, ops, *, request_id=None):
            if isinstance(ops[0], Put):
                self.store.execute([Delete("user-42", "a")])
            return super().execute(ops, request_id=request_id)

    done = Encrypted(Racing(inner), [OTHER, key]).rewrite("user-42")
    assert done.items == 1
    assert dict(opened(inner, OTHER, key).items()) == {"b": 2}


def test_a_redaction_beside_a_rewriting_stays_one(inner, key, hide):
    talk = opened(inner, key, hide=hide).conversation("t")
    talk.extend(["secret", "other"])
    editor = opened(inner, key, OTHER, hide=False) if not hide else opened(inner, key, hide=True)

    class Racing(Listening):
        def execute(self, ops, *, request_id=None):
            if isinstance(ops[0], Edit):
                editor.conversation("t").redact("#1")
            return super().execute(ops, request_id=request_id)

    done = Encrypted(Racing(inner), [OTHER, key], hide_keys=hide).rewrite("user-42")
    found = [message.value for message in opened(inner, OTHER, key, hide=hide).conversation("t")]
    assert found == ["[redacted]", "other"]
    assert done.messages == 1


# ── the twin, and the arguments of Memory ───────────────────────────────────────────────────────────


def test_the_twins_have_the_same_methods():
    def public(kind):
        return {
            name: [*inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert public(Encrypted) == public(AsyncEncrypted)


async def test_the_async_twin_does_the_same(tmp_path, key, hide):
    inner = SQLiteStore(str(tmp_path / "memory.db"))
    store = AsyncEncrypted(AsyncSQLiteStore(inner), [OTHER, key], hide_keys=hide)
    memory = AsyncMemory("user-42", store=store)
    await memory.set("coffee", {"from": "Yirgacheffe"})
    assert await memory.get("coffee") == {"from": "Yirgacheffe"}
    assert [item.key async for item in memory.items(where={"from": "Yirgacheffe"}, prefix="c")] == ["coffee"]
    talk = memory.conversation("t")
    await talk.append("hello")
    await talk.edit("#2", "hello again")
    assert [message.value for message in await talk.messages()] == ["hello again"]
    with pytest.raises(Conflict):
        await memory.set("coffee", 1, if_version=99)
    await memory.export(tmp_path / "export.jsonl")
    assert b"Yirgacheffe" not in (tmp_path / "export.jsonl").read_bytes()
    copy = AsyncMemory("copy", store=store)
    await copy.import_(tmp_path / "export.jsonl")
    assert await copy.get("coffee") == {"from": "Yirgacheffe"}
    assert await store.rewrite("user-42") == (0, 0, 0)
    assert list((await store.keys_in_use("user-42")).values()) == [2]
    assert face(Encrypted(inner, [OTHER, key], hide_keys=hide)).get("coffee") is not None
    assert await store.wait("user-42", await memory.cursor(), 0) is False
    await store.close()


def test_a_memory_takes_a_key(tmp_path, key):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    memory = Memory("user-42", url, encryption_key=key)
    memory.set("coffee", "Yirgacheffe")
    assert Memory("user-42", url, encryption_key=[OTHER, key]).get("coffee") == "Yirgacheffe"
    with pytest.raises(InvalidInput, match="encryption_key"):
        Memory("user-42", url).get("coffee")
    copy = pickle.loads(pickle.dumps(memory))
    assert copy.get("coffee") == "Yirgacheffe"
    assert key[5:] not in repr(memory)


def test_a_namespace_is_looked_at_once_and_not_with_every_memory(inner, key):
    named("read only", Encrypted(inner, key)).set("a", 1)
    named("read only", Encrypted(inner, key)).erase("nothing")  # forgets what it knows
    listening = Listening(inner)
    for number in range(5):
        face(Encrypted(listening, key)).set("a", number)
        assert named("read only", Encrypted(listening, key)).get("a") == 1
    assert sum('"scan"' in each for each in listening.heard) == 2


def test_the_feed_names_what_was_changed(memory, store):
    memory.set("a", 1)
    memory.conversation("t").append("x")
    memory.clear()
    [page] = store.execute([Changes("user-42", "")])
    assert [(change.kind, change.key, change.conversation) for change in page.changes] == [
        ("set", "a", None), ("appended", None, "t"), ("cleared", None, None),
    ]  # fmt: skip


def test_clearing_and_erasing_by_name_work(memory):
    memory.set_many({"a": 1, "b": 2})
    memory.conversation("t").append("x")
    memory.conversation("u").append("x")
    assert memory.conversation("t").clear() == 1
    assert memory.erase("a").items == 1
    assert memory.erase(conversation="u").messages == 1
    assert (memory.keys(), list(memory.conversations())) == (["b"], [])
    assert memory.clear().items == 1
    assert memory.undo("b").value == 2
