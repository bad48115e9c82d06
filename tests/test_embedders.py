"""Embedders: what may be one, how their answers are checked, and how vectors are kept and compared."""

# Helpers go untyped here, as tests do.
# mypy: allow-untyped-calls

import json
import math
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botwire.errors import BotWireError, EmbedderFailed, InvalidInput
from botwire.search import vectors
from botwire.search.embedders import Embedder, open_embedder


def lengths(texts):
    return [[len(text), 1] for text in texts]


# ── callables ───────────────────────────────────────────────────────────────────────────────────────


def test_any_callable_is_an_embedder():
    embedder = open_embedder(lengths)
    assert embedder(["a", "bcd"]) == [[1.0, 1.0], [3.0, 1.0]]
    assert embedder([]) == []
    assert embedder.name == "lengths"
    assert open_embedder(embedder) is embedder


def test_a_callable_may_have_a_name_of_its_own():
    class Model:
        name = "my-model"

        def __call__(self, texts):
            return lengths(texts)

    assert open_embedder(Model()).name == "my-model"
    assert open_embedder(Model(), name="other").name == "other"


@pytest.mark.parametrize(
    "answer",
    [[[1.0]], [[1.0], [1.0], [1.0]], [[1.0], [1.0, 2.0]], [[], []], [[math.nan], [1.0]], [[math.inf], [1.0]], None, 7],
)
def test_an_answer_that_is_not_a_vector_for_each_text_is_refused(answer):
    with pytest.raises(EmbedderFailed, match="broken"):
        open_embedder(lambda texts: answer, name="broken")(["a", "b"])


def test_whatever_an_embedder_raises_is_one_error_with_its_cause():
    def fails(texts):
        raise TimeoutError("too slow")

    with pytest.raises(EmbedderFailed, match="TimeoutError: too slow") as caught:
        open_embedder(fails)(["a"])
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert isinstance(caught.value, BotWireError)


@pytest.mark.parametrize("given_", ["", "openai", "openai:", "magic:model", "text-embedding-3-small", 7, None])
def test_what_is_no_embedder_is_refused_with_what_there_is(given_):
    with pytest.raises(InvalidInput, match="sentence-transformers:MODEL"):
        open_embedder(given_)


def test_a_url_of_another_kind_is_refused():
    with pytest.raises(InvalidInput, match="ftp://"):
        open_embedder("openai:model@ftp://host")


@pytest.mark.parametrize("kind", ["sentence-transformers", "fastembed"])
def test_a_missing_extra_is_named(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind.replace("-", "_"), None)  # as if it were not installed
    with pytest.raises(ImportError, match=rf'pip install "botwire\[{kind}\]"'):
        open_embedder(f"{kind}:model")


# ── models in this process, by packages that stand in their place ───────────────────────────────────


@contextmanager
def package(folder, monkeypatch, name, code):
    """A package of that name, so that the real one (hundreds of megabytes) need not be there."""
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    yield
    sys.modules.pop(name, None)


LOADED = """
class Vectors(list):
    def tolist(self):
        return list(self)
loaded = []
"""


def test_sentence_transformers_are_loaded_when_first_used(tmp_path, monkeypatch):
    code = LOADED + (
        "class SentenceTransformer:\n"
        "    def __init__(self, model): loaded.append(model)\n"
        "    def encode(self, texts, show_progress_bar): return Vectors([[float(len(t))] for t in texts])\n"
    )
    with package(tmp_path, monkeypatch, "sentence_transformers", code):
        embedder = open_embedder("sentence-transformers:all-MiniLM-L6-v2")
        assert "sentence_transformers" not in sys.modules
        assert embedder(["abc"]) == embedder(["xyz"]) == [[3.0]]
        assert sys.modules["sentence_transformers"].loaded == ["all-MiniLM-L6-v2"]
        assert embedder.name == "sentence-transformers:all-MiniLM-L6-v2"


def test_fastembed_is_loaded_when_first_used(tmp_path, monkeypatch):
    code = LOADED + (
        "class TextEmbedding:\n"
        "    def __init__(self, model_name): loaded.append(model_name)\n"
        "    def embed(self, texts): return (Vectors([float(len(t))]) for t in texts)\n"
    )
    with package(tmp_path, monkeypatch, "fastembed", code):
        embedder = open_embedder("fastembed:BAAI/bge-small-en-v1.5")
        assert embedder(["abc", "de"]) == [[3.0], [2.0]]
        assert sys.modules["fastembed"].loaded == ["BAAI/bge-small-en-v1.5"]


# ── OpenAI's interface ──────────────────────────────────────────────────────────────────────────────


class Served:
    """A server with OpenAI's interface on loopback, that answers as it is told to."""

    def __init__(self):
        self.requests = []
        self.status = 200
        self.body: str | None = None
        self.url = ""

    def answer(self, request, headers):
        self.requests.append((request, headers))
        if self.body is not None:
            return self.body
        data = [{"index": n, "embedding": [len(text), 1.0]} for n, text in enumerate(request["input"])]
        return json.dumps({"data": data[::-1]})  # in any order


@pytest.fixture
def served():
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):  # the name is the library's
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = state.answer(request, {**self.headers, "path": self.path}).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def test_any_server_with_openais_interface_embeds(served, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    embedder = open_embedder(f"openai:nomic-embed-text@{served.url}/")
    assert embedder(["a", "bcd"]) == [[1.0, 1.0], [3.0, 1.0]]
    request, headers = served.requests[0]
    assert request == {"model": "nomic-embed-text", "input": ["a", "bcd"]}
    assert headers["path"] == "/v1/embeddings"
    assert headers["Authorization"] == "Bearer sk-test"
    assert embedder.name == "openai:nomic-embed-text", "the address may change, the vectors stay"


def test_the_address_may_come_from_the_environment_and_a_key_is_not_needed(served, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", served.url)
    assert open_embedder("openai:model")(["abc"]) == [[3.0, 1.0]]
    assert "Authorization" not in served.requests[0][1]


def test_many_texts_go_in_several_requests_in_their_order(served):
    texts = ["x" * number for number in range(300)]
    assert open_embedder(f"openai:model@{served.url}")(texts) == [[float(max(n, 1)), 1.0] for n in range(300)]
    assert [len(request["input"]) for request, _ in served.requests] == [128, 128, 44]


def test_openai_itself_needs_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(EmbedderFailed, match="OPENAI_API_KEY"):
        open_embedder("openai:text-embedding-3-small")(["a"])


def test_an_error_of_the_server_says_which_and_keeps_the_key_to_itself(served, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    served.status, served.body = 429, '{"error": "slow down"}'
    with pytest.raises(EmbedderFailed, match=r"429.*slow down") as caught:
        open_embedder(f"openai:model@{served.url}")(["a"])
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("body", ["<html>", "{}", '{"data": [{"embedding": [1]}]}', '{"data": 7}', '{"data": []}'])
def test_an_answer_that_holds_no_embeddings_is_refused(served, body):
    served.body = body
    with pytest.raises(EmbedderFailed):
        open_embedder(f"openai:model@{served.url}")(["a"])


def test_a_server_that_is_not_there_is_an_error(served):
    with pytest.raises(EmbedderFailed, match="cannot be reached"):
        open_embedder("openai:model@http://127.0.0.1:1/v1")(["a"])


# ── vectors ─────────────────────────────────────────────────────────────────────────────────────────

NUMBER = st.floats(-1, 1, width=32)


def test_a_packed_vector_has_length_one():
    assert vectors.unpack(vectors.pack([3, 4])).tolist() == pytest.approx([0.6, 0.8])
    assert vectors.dimension(vectors.pack([3, 4])) == 2
    assert vectors.unpack(vectors.pack([0, 0])).tolist() == [0, 0]


@pytest.fixture(params=["numpy", "the standard library"])
def with_and_without_numpy(request, monkeypatch):
    if request.param == "numpy":
        pytest.importorskip("numpy")
    else:
        monkeypatch.setattr(vectors, "_numpy", lambda: None)


def matrix(*rows):
    made = vectors.Matrix(len(rows[0]))
    for number, row in enumerate(rows):
        made.add(number, vectors.pack(row))
    return made


@pytest.mark.usefixtures("with_and_without_numpy")
def test_the_nearest_are_those_of_the_highest_cosine():
    made = matrix([1, 0], [1, 1], [0, 1], [-1, 0])
    found = made.nearest(vectors.pack([2, 0]), 2)
    assert found.cosines == pytest.approx({0: 1.0, 1: math.sqrt(0.5)})
    assert found.mean == pytest.approx(math.sqrt(0.5) / 4)


@pytest.mark.usefixtures("with_and_without_numpy")
def test_only_those_admitted_are_found_and_the_mean_is_that_of_all():
    made = matrix([1, 0], [1, 1], [0, 1])
    found = made.nearest(vectors.pack([1, 0]), 5, admitted=lambda document: document > 0)
    assert set(found.cosines) == {1, 2}
    assert found.mean == made.nearest(vectors.pack([1, 0]), 1).mean


@pytest.mark.usefixtures("with_and_without_numpy")
def test_documents_can_be_taken_out():
    made = matrix([1, 0], [1, 1], [0, 1]).without({0})
    assert set(made.nearest(vectors.pack([1, 0]), 5).cosines) == {1, 2}
    assert made.without({1, 2}).nearest(vectors.pack([1, 0]), 5) is None
    made.add(9, vectors.pack([1, 0]))
    assert made.nearest(vectors.pack([1, 0]), 1).cosines == pytest.approx({9: 1.0})


def test_vectors_of_another_dimension_are_refused():
    made = matrix([1, 0])
    with pytest.raises(InvalidInput, match="3 numbers"):
        made.add(1, vectors.pack([1, 0, 0]))
    with pytest.raises(InvalidInput, match="3 numbers"):
        made.nearest(vectors.pack([1, 0, 0]), 1)


@given(st.lists(st.lists(NUMBER, min_size=3, max_size=3), min_size=1, max_size=20), st.integers(1, 25))
def test_numpy_and_the_standard_library_find_the_same(rows, limit):
    pytest.importorskip("numpy")
    made, query = matrix(*rows), vectors.pack(rows[0])
    fast = made.nearest(query, limit)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(vectors, "_numpy", lambda: None)
        slow = made.nearest(query, limit)
    assert sorted(fast.cosines.values()) == pytest.approx(sorted(slow.cosines.values()), abs=1e-5)
    assert fast.mean == pytest.approx(slow.mean, abs=1e-5)


def test_an_embedder_shows_its_name():
    assert repr(Embedder("m", lengths)) == "Embedder('m')"
