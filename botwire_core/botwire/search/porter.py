"""English words less their endings: M. F. Porter's algorithm of 1980, as SQLite's `porter` has it.

connect, connected, connecting, connection, connections -> connect
"""

from __future__ import annotations

import re

LONGEST = 64  # letters; a longer string is no word

_C, _V = "[^aeiou]", "[aeiouy]"  # a `y` is a consonant where it begins a word or follows a vowel
_CONSONANTS, _VOWELS = f"{_C}[^aeiouy]*", f"{_V}[aeiou]*"
_has_measure = re.compile(f"^(?:{_CONSONANTS})?+{_VOWELS}{_CONSONANTS}").match  # m > 0
_has_measure_1 = re.compile(f"^(?:{_CONSONANTS})?+{_VOWELS}{_CONSONANTS}(?:{_VOWELS})?$").match  # m = 1
_has_measure_over_1 = re.compile(f"^(?:{_CONSONANTS})?+{_VOWELS}{_CONSONANTS}{_VOWELS}{_CONSONANTS}").match  # m > 1
_has_vowel = re.compile(f"^(?:{_CONSONANTS})?+{_V}").match
_ends_short = re.compile(f"(?:[^aeiouy]|(?<![^aeiou])y){_V}[^aeiouwxy]$").search  # consonant, vowel, consonant

# The ending, and what takes its place; the longest first.
_STEP_2 = (
    ("ational", "ate"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("ization", "ize"),
    ("tional", "tion"), ("biliti", "ble"), ("entli", "ent"), ("ousli", "ous"), ("ation", "ate"), ("alism", "al"),
    ("aliti", "al"), ("iviti", "ive"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("logi", "log"),
    ("alli", "al"), ("ator", "ate"), ("bli", "ble"), ("eli", "e"),
)  # fmt: skip
_STEP_3 = (
    ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ness", ""), ("ful", ""),
)  # fmt: skip
_STEP_4 = (
    "ement", "ance", "ence", "able", "ible", "ment", "sion", "tion", "ant", "ent", "ism", "ate", "iti", "ous", "ive",
    "ize", "al", "er", "ic", "ou",
)  # fmt: skip


def stem(word: str) -> str:
    """A lower-case ASCII word less its endings; anything else as it is."""
    if not 2 < len(word) <= LONGEST or not word.isalpha():
        return word
    word = _past(_plural(word))
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    return _last(_cut(_replace(_replace(word, _STEP_2), _STEP_3)))


def _plural(word: str) -> str:
    if (word.endswith("sses") and len(word) > 4) or (word.endswith("ies") and len(word) > 3):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _past(word: str) -> str:
    if word.endswith("eed") and len(word) > 3:
        return word[:-1] if _has_measure(word[:-3]) else word
    for ending in ("ed", "ing"):
        root = word[: -len(ending)]
        if word.endswith(ending):
            return _mended(root) if _has_vowel(root) else word
    return word


def _mended(root: str) -> str:
    """What is left when "ed" or "ing" is gone: hop(p)ing, fil(e)ing."""
    if root.endswith(("at", "bl", "iz")):
        return root + "e"
    if len(root) > 1 and root[-1] == root[-2] and root[-1] not in "aeioulsz":
        return root[:-1]
    if _has_measure_1(root) and _ends_short(root):
        return root + "e"
    return root


def _replace(word: str, endings: tuple[tuple[str, str], ...]) -> str:
    if word[-1] not in "ilrnmse":
        return word  # most words: faster
    for ending, other in endings:
        if word.endswith(ending):
            root = word[: -len(ending)]
            return root + other if _has_measure(root) else word
    return word


def _cut(word: str) -> str:
    if word[-1] not in "tenmislrcu":
        return word
    for ending in _STEP_4:
        if word.endswith(ending):
            root = word[: 1 - len(ending)] if ending in ("sion", "tion") else word[: -len(ending)]
            return root if _has_measure_over_1(root) else word
    return word


def _last(word: str) -> str:
    if word.endswith("e"):
        root = word[:-1]
        if _has_measure_over_1(root) or (_has_measure_1(root) and not _ends_short(root)):
            word = root
    if word.endswith("ll") and _has_measure_over_1(word[:-1]):
        word = word[:-1]
    return word
