"""What an embedder is: any callable `list[str] -> list[vector]`, or a string that names one.

openai:text-embedding-3-small               the key is in OPENAI_API_KEY
openai:nomic-embed-text@http://localhost:11434/v1    any server with OpenAI's interface
sentence-transformers:all-MiniLM-L6-v2      or a folder with a model
fastembed:BAAI/bge-small-en-v1.5
"""

from __future__ import annotations

import importlib.util
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from botwire.errors import EmbedderFailed, InvalidInput

Embed = Callable[[list[str]], Iterable[Iterable[float]]]

OPENAI_URL = "https://api.openai.com/v1"
TIMEOUT = 60.0  # seconds for a request
BATCH = 128  # texts in a request
_KINDS = "openai:MODEL, openai:MODEL@URL, sentence-transformers:MODEL and fastembed:MODEL"


class Embedder:
    """A named embedder whose answers are checked."""

    def __init__(self, name: str, embed: Embed) -> None:
        self.name = name
        self._embed = embed

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text. Raises `EmbedderFailed`."""
        if not texts:
            return []
        try:
            vectors = [[float(number) for number in vector] for vector in self._embed(list(texts))]
        except EmbedderFailed:
            raise
        except Exception as error:  # whatever somebody else's code raises
            raise EmbedderFailed(f"the embedder {self.name} failed: {type(error).__name__}: {error}") from error
        self._check(vectors, len(texts))
        return vectors

    def _check(self, vectors: list[list[float]], texts: int) -> None:
        if len(vectors) != texts:
            raise EmbedderFailed(f"the embedder {self.name} answered {len(vectors)} vectors for {texts} texts")
        lengths = {len(vector) for vector in vectors}
        if len(lengths) != 1 or 0 in lengths:
            raise EmbedderFailed(f"the embedder {self.name} answered vectors of {sorted(lengths)} numbers")
        if not all(math.isfinite(number) for vector in vectors for number in vector):
            raise EmbedderFailed(f"the embedder {self.name} answered a vector with NaN or Infinity in it")

    def __repr__(self) -> str:
        return f"Embedder({self.name!r})"


def open_embedder(given: str | Embed | Embedder, name: str | None = None) -> Embedder:
    """The embedder that a string names, or a callable as one. Models are loaded when they are first used.

    `name` says which vectors may be compared: a callable's own is its `name` attribute, else that of the function.
    """
    if isinstance(given, Embedder):
        return given
    if isinstance(given, str):
        return _named(given, name)
    if not callable(given):
        raise InvalidInput(f"an embedder is a callable from texts to vectors, or one of {_KINDS}; not {given!r}")
    own = getattr(given, "name", None) or getattr(given, "__qualname__", None) or type(given).__qualname__
    return Embedder(name or str(own), given)


def _named(given: str, name: str | None) -> Embedder:
    kind, _, model = given.partition(":")
    if not model:
        raise InvalidInput(f"unknown embedder {given!r}: there are {_KINDS}, and any callable")
    if kind == "openai":
        model, _, url = model.partition("@")
        return Embedder(name or f"openai:{model}", _OpenAI(model, url or os.environ.get("OPENAI_BASE_URL", OPENAI_URL)))
    loaders = {"sentence-transformers": _sentence_transformers, "fastembed": _fastembed}
    if kind not in loaders:
        raise InvalidInput(f"unknown embedder {given!r}: there are {_KINDS}, and any callable")
    _find_extra(kind)
    return Embedder(name or given, _Loaded(loaders[kind], model))


class _Loaded:
    """A model in this process, loaded when it is first used. One thread at a time uses it."""

    def __init__(self, load: Callable[[str], Embed], model: str) -> None:
        self._load, self._model = load, model
        self._embed: Embed | None = None
        self._lock = threading.Lock()

    def __call__(self, texts: list[str]) -> Iterable[Iterable[float]]:
        with self._lock:
            if self._embed is None:
                self._embed = self._load(self._model)
            return self._embed(texts)


def _find_extra(kind: str) -> None:
    """Raise an `ImportError` that says what to install, without loading anything."""
    if importlib.util.find_spec(kind.replace("-", "_")) is None:
        raise ImportError(f'{kind} is not installed: pip install "botwire[{kind}]"')


def _sentence_transformers(model: str) -> Embed:
    import sentence_transformers as library  # pyright: ignore[reportMissingImports]  # an extra; takes seconds, so only when used

    encoder: Any = library.SentenceTransformer(model)

    def embed(texts: list[str]) -> Iterable[Iterable[float]]:
        return cast("list[list[float]]", encoder.encode(texts, show_progress_bar=False).tolist())

    return embed


def _fastembed(model: str) -> Embed:
    import fastembed as library  # pyright: ignore[reportMissingImports]  # an extra; takes seconds, so only when used

    encoder: Any = library.TextEmbedding(model_name=model)

    def embed(texts: list[str]) -> Iterable[Iterable[float]]:
        return [cast("list[float]", vector.tolist()) for vector in encoder.embed(texts)]

    return embed


class _OpenAI:
    """OpenAI's interface, wherever it is served."""

    def __init__(self, model: str, url: str) -> None:
        if not url.startswith(("https://", "http://")):
            raise InvalidInput(f"the URL of an embedder begins with https:// or http://, not {url!r}")
        self._model, self._url = model, url.rstrip("/") + "/embeddings"

    def __call__(self, texts: list[str]) -> Iterable[Iterable[float]]:
        import httpx  # 250 ms: only when it is used

        key = os.environ.get("OPENAI_API_KEY")
        if not key and self._url.startswith(OPENAI_URL):
            raise EmbedderFailed("OPENAI_API_KEY is not set: OpenAI's embeddings need a key")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        vectors: list[list[float]] = []
        with httpx.Client(timeout=TIMEOUT, headers=headers) as client:
            for first in range(0, len(texts), BATCH):
                # an empty text is refused there
                batch = [text or " " for text in texts[first : first + BATCH]]
                try:
                    answer = client.post(self._url, json={"model": self._model, "input": batch})
                except httpx.HTTPError as error:
                    raise EmbedderFailed(f"{self._url} cannot be reached: {error or type(error).__name__}") from error
                vectors += self._read(answer)
        return vectors

    def _read(self, answer: Any) -> list[list[float]]:
        if answer.status_code != 200:
            raise EmbedderFailed(f"{self._url} answered {answer.status_code}: {answer.text[:300]}")
        try:
            data = sorted(answer.json()["data"], key=lambda entry: entry["index"])
            return [entry["embedding"] for entry in data]
        except (ValueError, KeyError, TypeError) as error:
            raise EmbedderFailed(f"{self._url} answered something else than embeddings: {answer.text[:300]}") from error
