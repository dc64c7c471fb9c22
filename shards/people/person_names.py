"""Detects names of people in names of files, folders and patients (pure).

    Smith_John_OD, MULLER Hans, JohnSmith, nguyen^thi, "García, José", Smith_J, 张伟, Иванов

It knows common given names and surnames (names.txt), the ways in which names are written, and words that are
not names: diseases, devices, sides, words of data sets (harmless.txt). An unknown word counts as a name only
beside another word, and only if both are written like names.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise

SHORT, LONG = 3, 4
"""Fewest letters of a name that counts beside another one, and of one that counts alone."""
_RUN = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"[A-ZÀ-ÖØ-Þ]+(?![a-zß-öø-ÿ])|[A-ZÀ-ÖØ-Þ]?[^\WA-ZÀ-ÖØ-Þ\d_]+")
_FOREIGN = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0300-\u036f\u0900-\u0dff\u0e00-\u109f\u1780-\u17ff])*")
"""Letters with the combining marks of the scripts of India, Thailand, Burma and Cambodia."""
_BETWEEN = re.compile(r"[ _\-.'’]{0,3}")
_FORMAL = re.compile(r"\s*[,^]\s*")
"""The separators of surname and given name in lists and DICOM."""
_VOWEL = re.compile(r"[aeiouy]")
_TITLES = frozenset(("mr", "mrs", "ms", "miss", "herr", "frau", "mme", "sra", "sig", "herrn"))
_SIDES = frozenset("LRlr")
_ALSO_WORDS = frozenset(
    ("mark", "max", "jan", "june", "april", "may", "august", "white", "green", "gray", "long", "black")
)
"""Names that are also ordinary words: they count only beside an unknown word that is written like a name."""
# Unicode does not decompose these letters, so removing accents does not change them.
_MAPPED = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "ß": "ss", "æ": "ae", "œ": "oe"})


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    plain: str
    start: int
    end: int

    @property
    def is_title(self) -> bool:
        """Whether it is written like a name: `Smith` or `SMITH`."""
        return self.text[0].isupper() and (self.text[1:].islower() or self.text.isupper())

    @property
    def is_known_name(self) -> bool:
        return len(self.plain) >= SHORT and self.plain in _all_names()

    @property
    def is_strong_name(self) -> bool:
        return self.plain in _strong_names()

    @property
    def is_harmless(self) -> bool:
        plain = self.plain
        return plain in _harmless_words() or (plain.endswith("s") and plain[:-1] in _harmless_words())

    @property
    def may_be_name(self) -> bool:
        """Whether it is a known name, or an unknown word with a vowel."""
        return self.is_known_name or (not self.is_harmless and _VOWEL.search(self.plain) is not None)


@lru_cache(maxsize=65_536)
def holds_person(text: str) -> bool:
    """Whether the name of a file, a folder or a patient seems to hold a person's name."""
    if any(_is_foreign_name(run) for run in _foreign_runs(text)):
        return True
    words = _words(text)
    if any(word.is_strong_name for word in words):
        return True
    pairs = list(pairwise(words))
    return any(_are_name(text, a, b) or _is_formal(text, a, b) or _is_initial(text, a, b) for a, b in pairs)


@lru_cache(maxsize=4096)
def is_person(text: str) -> bool:
    """`holds_person` for a cell of a patient column, where one word written like a name is enough."""
    if holds_person(text):
        return True
    words = _words(text)
    if not words or any(letter.isdigit() for letter in text):
        return False
    return all(word.may_be_name for word in words) and any(
        word.is_known_name or (word.is_title and len(word.plain) > SHORT) for word in words
    )


@lru_cache(maxsize=4096)
def is_surely_person(text: str) -> bool:
    """`holds_person` for a label or a source: it needs two known names; unknown words do not count."""
    words = _words(text)
    pairs = list(pairwise(words))
    return any(
        (a.is_known_name and b.is_known_name and (a.is_strong_name or b.is_strong_name) and _near(text, a, b))
        or (_is_formal(text, a, b) and (a.is_known_name or b.is_known_name))
        for a, b in pairs
    )


def _are_name(text: str, a: _Word, b: _Word) -> bool:
    """Returns whether two neighbouring words look like the name of a person."""
    if not _near(text, a, b):
        return False
    if a.plain in _TITLES and b.is_title and b.may_be_name:
        return True
    if {a.plain, b.plain} & _ALSO_WORDS and a.is_title and b.is_title:
        other = b if a.plain in _ALSO_WORDS else a
        return other.may_be_name and len(other.plain) >= SHORT and not other.text.isupper()
    if not (a.may_be_name and b.may_be_name) or max(len(a.plain), len(b.plain)) < LONG:
        return a.is_known_name and b.is_known_name and a.is_title and b.is_title
    if a.is_known_name and b.is_known_name:
        return True
    return min(len(a.plain), len(b.plain)) > 1 and a.is_title and b.is_title and _not_two_codes(a, b)


def _not_two_codes(a: _Word, b: _Word) -> bool:
    """False for two unknown words in capitals of which one is short: they are codes."""
    both = a.text.isupper() and b.text.isupper() and len(a.text) > 1 < len(b.text)
    return not both or a.is_known_name or b.is_known_name or min(len(a.text), len(b.text)) >= LONG


def _is_formal(text: str, a: _Word, b: _Word) -> bool:
    parted = _FORMAL.fullmatch(text[a.end : b.start]) is not None
    return parted and not (a.is_harmless and b.is_harmless) and min(len(a.plain), len(b.plain)) > 1


def _is_initial(text: str, a: _Word, b: _Word) -> bool:
    """Whether two words are a name and an initial: `Smith_J`, `J. Smith`. `_L` and `_R` are sides."""
    word, letter = (a, b) if len(b.text) == 1 else (b, a)
    gap = text[a.end : b.start]
    is_initial = len(letter.text) == 1 and letter.text.isupper() and letter.text not in _SIDES
    if not is_initial or not gap.strip(" ") or len(gap) > 2:
        return False
    return word.is_title and word.may_be_name and len(word.plain) >= LONG and gap[0] in "_.,-"


def _near(text: str, a: _Word, b: _Word) -> bool:
    return _BETWEEN.fullmatch(text[a.end : b.start]) is not None


@lru_cache(maxsize=65_536)
def _words(text: str) -> tuple[_Word, ...]:
    """Returns the words in Latin letters. `JohnSmith` is two words."""
    # macOS stores an accent as a character of its own, which would split `García` after the i.
    text = unicodedata.normalize("NFC", text)
    words = []
    for run in _RUN.finditer(text):
        if not _is_latin(run[0]):
            continue
        # The whole word first, because `McDonald` and `OCTDL` are one word in spite of their capitals.
        whole = _word(run[0], run.start())
        if whole.is_known_name or whole.is_harmless:
            words.append(whole)
            continue
        words += [_word(part[0], run.start() + part.start()) for part in _CAMEL.finditer(run[0])]
    return tuple(words)


def _word(text: str, start: int) -> _Word:
    return _Word(text, plain_letters(text), start, start + len(text))


def plain_letters(text: str) -> str:
    """Returns a text in lower case without accents."""
    apart = unicodedata.normalize("NFKD", text.casefold().translate(_MAPPED))
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


def _is_latin(text: str) -> bool:
    return all("LATIN" in unicodedata.name(letter, "") for letter in text if letter.isalpha())


def _foreign_runs(text: str) -> list[str]:
    """Returns the runs of letters that are not Latin."""
    if text.isascii():
        return []
    text = unicodedata.normalize("NFC", text)
    return [run[0] for run in _FOREIGN.finditer(text) if not _is_latin(run[0])]


def _is_foreign_name(run: str) -> bool:
    """Whether a word in another script has two letters or more and is not a known word for eyes or images."""
    known = _harmless_scripts()
    if run in known or run.casefold() in known or plain_letters(run) in known:
        return False
    return len(run) > 1 and not (_is_made_of(run, known) or run in ("年", "月", "日"))


def _is_made_of(run: str, known: frozenset[str]) -> bool:
    """Whether a run of letters without spaces consists of known words."""
    if not run:
        return True
    return any(run.startswith(word) and _is_made_of(run[len(word) :], known) for word in known if word)


@cache
def _harmless_words() -> frozenset[str]:
    return _read("harmless.txt")


@cache
def _harmless_scripts() -> frozenset[str]:
    return _read("harmless_scripts.txt") | frozenset("年月日")


@cache
def _strong_names() -> frozenset[str]:
    return _read("names.txt")


@cache
def _all_names() -> frozenset[str]:
    return _strong_names() | _read("short_names.txt")


def _read(name: str) -> frozenset[str]:
    text = (resources.files("shards.people") / name).read_text(encoding="utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())
