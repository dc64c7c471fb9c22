"""Dates and hospitals' numbers, told from counters, years and sizes."""

import random
from datetime import date, timedelta

import pytest

from shards.people.dates_and_numbers import (
    holds_date,
    holds_identifier,
    is_published_name,
    is_short_date,
    is_whole_date,
    long_numbers,
    may_hold_date,
    may_hold_identifier,
)


def test_a_date_of_birth_is_found_in_every_usual_form() -> None:
    draw = random.Random(19500101)
    forms = (
        "%Y%m%d", "%d%m%Y", "%m%d%Y", "%Y-%m-%d", "%d.%m.%Y", "%m-%d-%Y", "%d_%m_%Y", "%Y_%m_%d", "%d-%b-%Y",
        "%d%b%Y", "%b_%d_%Y", "%d %B %Y", "%Y%m%d%H%M%S", "%Y年%m月%d日", "dob%y",
    )  # fmt: skip
    for form in forms:
        for _ in range(40):
            day = date(1920, 1, 1) + timedelta(days=draw.randrange(36_000))
            text = f"case_{day.strftime(form)}_OD"
            assert holds_date(text), text


def test_counters_years_and_sizes_are_no_dates() -> None:
    for text in ("OCT2017", "00000123", "slice_20", "1_OCT_2017", "512x128", "6mm", "99999999", "2017_1_2", "v1.2.3",
                 "12-05-03", "20001301", "1950"):  # fmt: skip
        assert not holds_date(text), text


@pytest.mark.parametrize(
    "text",
    ["MRN 4711023", "patient_id_20391", "123-45-6789", "943 476 5919", "RSSMRA50A01H501U", "010150-123A",
     "19500101-1234", "j.smith@clinic.org", "1.2.840.113619.2.55.3", "Case No. 55012"],
)  # fmt: skip
def test_forms_of_identifiers_are_known(text: str) -> None:
    assert holds_identifier(text) or holds_date(text)


def test_what_may_hold_a_date_is_asked_of_zeros_and_never_misses_one() -> None:
    """The quick question is asked once for all names of one shape: a no must hold for every digit."""
    for text in (
        "19500131",
        "1950-01-31",
        "31.1.1950",
        "31_01_1950",
        "3 March 1950",
        "1950年1月",
        "dob500131",
    ):
        assert holds_date(text), text
        assert may_hold_date(text.translate(str.maketrans("123456789", "000000000"))), text
    assert not may_hold_date("slice_000")
    assert may_hold_identifier("mrn 0000000")
    assert not may_hold_identifier("eye_00")


def test_a_whole_date_may_carry_a_time_and_has_a_month_and_a_day() -> None:
    assert is_whole_date("19500131")
    assert is_whole_date("31011950")
    assert is_whole_date("195001312359")
    assert not is_whole_date("195001312460")
    assert not is_whole_date("19500231")
    assert is_short_date("500131")
    assert is_short_date("290200"), "a leap day of some century"
    assert not is_short_date("501399")


def test_long_numbers_come_with_the_text_before_them_and_counters_and_digests_do_not() -> None:
    assert list(long_numbers("eye_4711023_OD")) == [("eye_", "4711023")]
    assert list(long_numbers("s_500131")) == [("s_", "500131")]
    assert list(long_numbers("00000123")) == []
    assert list(long_numbers("19500131")) == [], "a date is counted as a date"
    assert list(long_numbers("93b0c27f4e11")) == []


def test_files_of_published_sets_are_numbered_for_publishing() -> None:
    assert is_published_name("CNV-1016042-1")
    assert is_published_name("amd_1047099_1")
    assert not is_published_name("amd_1047099_1_Smith")
