"""Detects dates and hospital numbers in names of files, folders and patients (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

SHORT_DATE_DIGITS = 6
"""Digits of a date without its century. Such numbers count only if all of a source's are dates."""
_FIRST_YEAR, _LAST_YEAR = 1900, 2049
_COUNTER = 10_000
"""A long number of a smaller value is a counter with leading zeros."""
_MONTHS = (
    "jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|fevr(?:ier)?|mar(?:ch|s|zo)?|maerz|marz|apr(?:il)?|avr(?:il)?|abr(?:il)?|"
    "may|mai|mayo|june?|juni|juin|junio|july?|juli|juil(?:let)?|julio|aug(?:ust)?|aout|ago(?:sto)?|"
    "sept?(?:ember)?|oct(?:ober|obre)?|okt(?:ober)?|nov(?:ember|embre)?|dec(?:ember|embre)?|dez(?:ember)?|"
    "dic(?:iembre)?"
)
_YEAR_FIRST = re.compile(
    r"(?<!\d)(\d{4})([-./ ])(\d{1,2})\2(\d{1,2})(?!\d)|(?<!\d)(\d{4})_(\d{2})_(\d{2})(?!\d)"
)
_YEAR_LAST = re.compile(r"(?<!\d)(\d{1,2})([-._/ ])(\d{1,2})\2(\d{4})(?!\d)")
_SHORT_YEAR = re.compile(r"(?<!\d)(\d{2})([-./])(\d{2})\2(\d{2})(?!\d)")
_NAMED_MONTH = re.compile(
    rf"(?<!\d)\d{{1,2}}(?P<gap>[-_. ]{{0,2}})(?P<month>{_MONTHS})(?P<after>[-_., ]{{0,2}})"
    r"(?P<year>\d{4}|\d{2})(?!\d)|"
    rf"(?<![a-z])(?:{_MONTHS})[-_. ]{{0,2}}\d{{1,2}}[-_., ]{{1,2}}(?:19|20)\d\d(?!\d)"
)
_WHOLE = re.compile(r"\d{8}")
_MONTH_FIRST = re.compile(rf"(?<![a-z])(?:{_MONTHS})")
_EASTERN = re.compile(r"\d{4}\s*年\s*\d{1,2}\s*月|(?:昭和|平成|大正|令和)\s*\d+\s*年|\d{4}년\s*\d{1,2}월")
_BORN = re.compile(
    r"(?<![a-z])(?:dob|born|birth(?:day|date)?|geb(?:oren)?|nacimiento|naissance)[-_ .:=]{0,2}\d{2,}"
)
_DIGITS = re.compile(r"\d+")
_KEYWORD = re.compile(
    r"(?<![a-z])(?:mrn|ssn|nhs|nhi|hcn|dni|nif|cpf|cpr|pesel|bsn|curp|aadhaar|ohip|kvnr|uhid|ipno|opno|ipd|opd|"
    r"pid|hn|accession|acc(?:ession)?[-_ ]?(?:no|nr)|"
    r"(?:patient|pat|hosp|hospital|fall|case)[-_ ]?(?:id|no|nr|number))"
    r"[-_ #:.=]{0,3}[a-z]{0,2}(\d{4,})"
)
_FORMS = re.compile(
    r"(?<!\d)(?:\d{3}-\d{2}-\d{4}|\d{3}([- ])\d{3}\1\d{4}|\d{6}[-+]\d{4}|\d{6}[-+a]\d{3}[0-9a-z])(?![\da-z])|"
    r"(?<![a-z])[a-z]{6}\d{2}[a-z]\d{2}[a-z]\d{3}[a-z](?![a-z\d])|"
    r"[\w.+-]+@[\w-]+\.[a-z]{2,}|(?<![\d.])(?:\d+\.){5,}\d+"
)
"""Social security and health numbers, fiscal codes, e-mail addresses, DICOM's UIDs."""
_HASH = re.compile(
    r"(?<![0-9a-z])(?=[0-9a-f-]*[a-f])(?=[0-9a-f-]*\d)"
    r"(?:[0-9a-f]{12,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![0-9a-z])"
)
"""Digests and UUIDs, which identify nobody."""
_PUBLISHED = re.compile(
    r"(?:cnv|dme|drusen|normal)-\d+-\d+|(?:amd|dme|erm|no|rao|rvo|vid)_\d+_\d+|octid|octdl"
)
"""Names of files in published sets: OCT2017 and OCTDL."""


def is_published_name(stem: str) -> bool:
    """Whether a file is named as in a published set. The numbers in it are not a hospital's."""
    return _PUBLISHED.fullmatch(stem.casefold()) is not None


def holds_date(text: str) -> bool:
    """Whether a text holds a date with its year, in any order, in digits or with a month's name."""
    plain = text.casefold()
    # Most names of folders hold no digit, and millions of names are checked.
    if not any(letter.isdigit() for letter in plain):
        return False
    has_numeric_date = (
        any(
            _is_day(int(a or d), int(b or e), int(c or f))
            for a, _, b, c, d, e, f in _YEAR_FIRST.findall(plain)
        )
        or any(_is_day_either_way(int(c), int(a), int(b)) for a, _, b, c in _YEAR_LAST.findall(plain))
        or any(
            # Only a number above 31 is certainly a year: 12-05-03 may be a version or a counter.
            int(c) > 31 and _is_day_either_way(1900 + int(c), int(a), int(b))
            for a, _, b, c in _SHORT_YEAR.findall(plain)
        )
    )
    return (
        has_numeric_date
        or any(_is_named_date(one) for one in _NAMED_MONTH.finditer(plain))
        or bool(
            _EASTERN.search(plain) or _BORN.search(plain) or any(map(is_whole_date, _DIGITS.findall(plain)))
        )
    )


def may_hold_date(zeros: str) -> bool:
    """Whether a text could hold a date if its zeros were other digits.

    Checked once for all names that differ only in digits."""
    plain = zeros.casefold()
    forms = (_WHOLE, _YEAR_FIRST, _YEAR_LAST, _SHORT_YEAR, _NAMED_MONTH, _EASTERN, _BORN)
    return any(form.search(plain) for form in forms) or ("0000" in plain and bool(_MONTH_FIRST.search(plain)))


def may_hold_identifier(zeros: str) -> bool:
    """Whether a text could hold an identifier if its zeros were other digits."""
    plain = zeros.casefold()
    return bool(_FORMS.search(plain) or _KEYWORD.search(plain))


def is_whole_date(digits: str) -> bool:
    """Whether a number is a date with its century: 19500131 (also with a time), 31011950, 01311950."""
    if len(digits) in (12, 14) and _is_clock(digits[8:]):
        return _is_day(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    if len(digits) != 8:
        return False
    first = _is_day(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    return first or _is_day_either_way(int(digits[4:]), int(digits[:2]), int(digits[2:4]))


def is_short_date(digits: str) -> bool:
    """Whether six digits may be a date without its century: year first or last."""
    a, b, c = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    return _is_day(1904 + a % 4, b, c) or _is_day_either_way(
        1904 + c % 4, a, b
    )  # any century will do: only leap years matter


def holds_identifier(text: str) -> bool:
    """Whether a text holds an identifier: a number after a word such as MRN, or one of a known form."""
    plain = text.casefold()
    return bool(_FORMS.search(plain)) or any(
        int(number) >= _COUNTER // 10 for number in _KEYWORD.findall(plain)
    )


def long_numbers(text: str) -> Iterator[tuple[str, str]]:
    """Yields (text before it, digits) of each number that may be a hospital's or a date without a century."""
    # Digests are removed first: their digits look like a hospital's number and identify nobody.
    plain = _HASH.sub("", text.casefold())
    for match in _DIGITS.finditer(plain):
        digits = match[0]
        if len(digits) < SHORT_DATE_DIGITS or is_whole_date(digits):
            continue
        if len(digits) == SHORT_DATE_DIGITS or int(digits) >= _COUNTER:
            yield plain[max(0, match.start() - 12) : match.start()], digits


def _is_named_date(match: re.Match[str]) -> bool:
    """Whether a match with a month's name is a date.

    `oct` is also a kind of image: it needs a four-digit year, and the same separator on both sides."""
    month, year = match["month"], match["year"]
    if month is None:
        return True
    if len(year) == 4:
        plausible = _FIRST_YEAR <= int(year) <= _LAST_YEAR
        return plausible and (month != "oct" or match["gap"] == match["after"] != "_")
    return month != "oct" and match["gap"] == match["after"] in ("", "-")


@lru_cache(maxsize=65_536)
def _is_day(year: int, month: int, day: int) -> bool:
    if not (_FIRST_YEAR <= year <= _LAST_YEAR and 1 <= month <= 12 and 1 <= day <= 31):
        return False
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _is_day_either_way(year: int, one: int, other: int) -> bool:
    return _is_day(year, one, other) or _is_day(year, other, one)


def _is_clock(digits: str) -> bool:
    return all(int(digits[at : at + 2]) < (24 if at == 0 else 60) for at in range(0, len(digits), 2))
