"""What the terms of a text are: one tokenizer, shared by indexing, questions and highlighting.

    terms("She went to the cafés")      -> she go to the cafe
    terms("getUserName, ERR_0042")      -> get user name getusername err 0042 err_0042
    terms("東京タワー")                   -> 東京 京タ タワ ワー and each character

Words are folded (case, accents, width), irregular forms become their base (went: go), and English endings go
(Porter's stemmer, as SQLite has it). Identifiers and paths are split, and kept whole too. Scripts that put no
spaces between words are cut into overlapping pieces. A term holds letters, digits, marks and `_` only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from . import porter

VERSION = 1
"""Changes when a text's terms change. An index that holds another version is made anew."""

MAX_TERM = 64  # characters; of a longer one its beginning

# Vowel signs and accents that stand alone belong to the word before them; `\w` leaves them out.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u0711\u0730-\u074a\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962-\u0963\u0981-\u0983"
    "\u09bc-\u09cd\u0a01-\u0a03\u0a3c-\u0a51\u0a70-\u0a71\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03\u0b3c-\u0b57\u0b82"
    "\u0bbe-\u0bcd\u0c00-\u0c04\u0c3e-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d4d\u0d82-\u0d83"
    "\u0dca-\u0ddf\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u0f71-\u0f84\u102b-\u103e"
    "\u1056-\u1059\u17b4-\u17d3\u3099\u309a"
)
_JOINERS = r"'’_./\\:@#-"
_LETTER = rf"(?:[^\W_]|[{_MARKS}])"
_ASCII_TOKEN = re.compile(rf"[A-Za-z0-9]{{1,64}}(?:[{_JOINERS}]+[A-Za-z0-9]{{1,64}}){{0,16}}")
_TOKEN = re.compile(rf"[^\W_]{_LETTER}{{0,63}}(?:[{_JOINERS}]+[^\W_]{_LETTER}{{0,63}}){{0,16}}")
_JOINER = re.compile(rf"[{_JOINERS}]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_AFTER_APOSTROPHE = frozenset(("s", "t", "d", "ll", "m", "re", "ve"))

_IDEOGRAPHS = (  # and what is written among them: kana, bopomofo, Hangul
    "\u3005-\u3007\u3041-\u3096\u3099-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_SPACELESS = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
_RUNS = re.compile(rf"[{_IDEOGRAPHS}]+|[{_SPACELESS}]+|[^{_IDEOGRAPHS}{_SPACELESS}]+")
_IDEOGRAPH = re.compile(rf"[{_IDEOGRAPHS}]")
_SPACELESS_LETTER = re.compile(rf"[{_SPACELESS}]")

_IRREGULAR = """go goes went gone; child children; man men; woman women; foot feet; tooth teeth;
mouse mice; person people; life lives; wife wives; knife knives; leaf leaves; shelf shelves;
be was were been; buy bought; bring brought; build built; catch caught; choose chose chosen;
come came; do did done; draw drew drawn; drink drank drunk; drive drove driven; eat ate eaten;
fall fell fallen; feel felt; fight fought; find found; fly flew flown; forget forgot forgotten;
get got gotten; give gave given; grow grew grown; hear heard; hold held; keep kept;
know knew known; leave left; lend lent; lose lost; make made; mean meant; meet met; pay paid;
ride rode ridden; ring rang rung; run ran; say said; see saw seen; sell sold; send sent;
sing sang sung; sit sat; sleep slept; speak spoke spoken; spend spent; stand stood;
steal stole stolen; swim swam swum; take took taken; teach taught; tell told; think thought;
throw threw thrown; understand understood; wake woke woken; wear wore worn; win won;
write wrote written; begin began begun; break broke broken; become became; dream dreamt;
learn learnt; lead led; shoot shot; sew sewn; show shown; hide hid hidden; hang hung;
blow blew blown; freeze froze frozen; rise rose risen; shake shook shaken; bite bit bitten;
dig dug; feed fed; light lit; stick stuck; strike struck; tear tore torn"""
_BASE = {form: forms[0] for forms in map(str.split, _IRREGULAR.split(";")) for form in forms}


def tokens(text: str) -> list[str]:
    """The words of a text as they stand there; an identifier or a path is one."""
    return (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(text)


def places(text: str) -> Iterator[re.Match[str]]:
    """The same, each with its place."""
    return (_ASCII_TOKEN if text.isascii() else _TOKEN).finditer(text)


def terms(text: str) -> list[str]:
    """The terms of a text, in its order, each as often as it is there."""
    return [term for token in tokens(text) for term in terms_of(token)]


@lru_cache(maxsize=8_192)
def terms_of(token: str) -> tuple[str, ...]:
    """The terms under which a token is found."""
    if token.isascii() and token.isalnum() and (token[1:].islower() or token.islower() or token.isdigit()):
        return (stem(token.lower()),)  # a plain word, as most are: faster
    found = [term for word in parts(token) for term in _cut(word, every=True)]
    if whole := whole_of(token):
        found.append(whole)
    return tuple(term[:MAX_TERM] for term in found)


@lru_cache(maxsize=4_096)
def asked(word: str) -> tuple[str, ...]:
    """The terms that a folded word of a question asks for: the longest pieces alone."""
    return tuple(term[:MAX_TERM] for term in _cut(word, every=False))


def count(token: str) -> int:
    """How many words a token counts for in the length of a text."""
    return sum(len(_cut(word, every=False)) for word in parts(token))


def parts(token: str) -> tuple[str, ...]:
    """The folded words in a token: `getUserName` holds three, `Anna's` one."""
    found: list[str] = []
    for place, part in enumerate(_JOINER.split(token)):
        if place and part.lower() in _AFTER_APOSTROPHE and ("'" in token or "’" in token):
            continue
        found += [word for piece in _HUMP.split(part) if (word := fold(piece))]
    return tuple(found)


def whole_of(token: str) -> str | None:
    """An identifier, path, address or number with its parts together; `None` for a plain word."""
    inner = [fold(part) for part in _JOINER.split(token)]
    if len(inner) > 1 and any(sign in token for sign in "_./\\:@#0123456789") and not ("'" in token or "’" in token):
        return "_".join(part for part in inner if part)[:MAX_TERM]
    if len(inner) == 1 and _HUMP.search(token):
        return stem(inner[0])[:MAX_TERM]  # as `getusername` is found
    return None


def is_run(token: str) -> bool:
    """Whether a token has in it a script that puts no spaces between words."""
    return not token.isascii() and bool(_IDEOGRAPH.search(token) or _SPACELESS_LETTER.search(token))


def fold(word: str) -> str:
    """A word without the differences of case, accents and width."""
    if word.isascii():
        return word.lower()
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", word).casefold())
    plain = re.sub("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]", "", plain)
    return "".join(c for c in unicodedata.normalize("NFC", plain) if unicodedata.category(c)[0] in "LNM")


def stem(word: str) -> str:
    """The term of a folded word: its base if it is an irregular form, less its English endings."""
    return porter.stem(_BASE.get(word, word)) if word.isascii() else word


def _cut(word: str, *, every: bool) -> list[str]:
    """The terms of a folded word; more than one where its script has no spaces. `every`: short pieces too."""
    if word.isascii():
        return [stem(word)]
    found: list[str] = []
    for run in _RUNS.findall(word):
        if _IDEOGRAPH.match(run):
            found += _pieces(run, 2)
            if every and len(run) > 1:
                found += run
        elif _SPACELESS_LETTER.match(run):
            found += _pieces(run, 3)
            if every and len(run) > 2:
                found += _pieces(run, 2)
        else:
            found.append(run)
    return found


def _pieces(run: str, length: int) -> list[str]:
    return [run[i : i + length] for i in range(max(1, len(run) - length + 1))]
