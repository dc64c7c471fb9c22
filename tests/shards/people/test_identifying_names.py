"""Whether names, dates and identifiers are told from classes and counters: both kinds of mistake, counted."""

import random
from collections.abc import Callable
from datetime import date, timedelta

import pytest

from shards.people.dates_and_numbers import holds_date, holds_identifier
from shards.people.identifying_names import DATE, IDENTIFIER, NAME, Judge, labels_of_people
from shards.people.person_names import holds_person, is_person, is_surely_person
from tests.shards.names_of_people import (
    CENSUS_GIVEN,
    CENSUS_SURNAMES,
    CLASSES,
    EASTERN_GIVEN,
    EASTERN_SURNAMES,
    FILES,
    OTHER_SCRIPTS,
)

FORMS: dict[str, tuple[Callable[[str, str], str], int, int]] = {
    "Smith_John_OD": (lambda a, b: f"{a.title()}_{b.title()}_OD", 2, 2),
    "John Smith 003": (lambda a, b: f"{b.title()} {a.title()} 003", 2, 2),
    "SMITH_JOHN_OS_1": (lambda a, b: f"{a.upper()}_{b.upper()}_OS_1", 2, 5),
    "smith_john_1": (lambda a, b: f"{a.lower()}_{b.lower()}_1", 6, 45),
    "Smith, John": (lambda a, b: f"{a.title()}, {b.title()}", 0, 0),
    "SMITH^JOHN": (lambda a, b: f"{a.upper()}^{b.upper()}", 0, 0),
    "JohnSmith": (lambda a, b: f"{b.title()}{a.title()}", 2, 2),
}
"""Form -> (how it is written, per cent missed at most of the census's names, of names from elsewhere)."""


@pytest.mark.parametrize("form", FORMS)
def test_names_of_two_parts_are_found_in_every_usual_form(form: str) -> None:
    write, of_census, of_others = FORMS[form]
    for surnames, given, most in (
        (CENSUS_SURNAMES, CENSUS_GIVEN, of_census),
        (EASTERN_SURNAMES, EASTERN_GIVEN, of_others),
    ):
        texts = [write(a, b) for a, b in zip(surnames, given, strict=True)]
        missed = [text for text in texts if not holds_person(text)]
        assert 100 * len(missed) <= most * len(texts), missed


def test_a_surname_alone_is_often_missed_in_a_file_and_hardly_ever_where_a_patient_is_named() -> None:
    """What is missed is one more reason to say source.keys=digest; a whole set is digested for one find."""
    names = [name.title() for name in CENSUS_SURNAMES]
    assert sum(not holds_person(f"{name}_02") for name in names) <= 0.5 * len(names)
    assert sum(not is_person(name) for name in names) <= 0.05 * len(names)


def test_names_in_other_scripts_are_found() -> None:
    """A Chinese or Korean surname is one letter: it is found beside a given name."""
    whole = [name if len(name) > 1 else f"{name}伟" for name in OTHER_SCRIPTS]
    assert [name for name in whole if not holds_person(f"{name}_OD_3")] == []
    assert not any(map(holds_person, ("正常", "左眼_3", "黄斑变性_012", "норма_1", "правый глаз", "정상")))


def test_no_class_of_eyes_is_taken_for_a_person_and_few_are_where_files_are_called_so() -> None:
    assert [
        name for name in CLASSES if is_surely_person(name) or holds_date(name) or holds_identifier(name)
    ] == []
    wrong = [name for name in CLASSES if holds_person(name)]
    assert len(wrong) <= 0.03 * len(CLASSES), wrong  # Wilson's and Graves' diseases
    assert labels_of_people(CLASSES[:30]) == frozenset()


def test_no_file_of_a_public_set_is_taken_for_a_person_a_date_or_an_identifier() -> None:
    for name in FILES:
        judged = Judge()
        judged.add([name])
        assert judged.told().is_harmless, name


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


def test_numbers_that_hospitals_give_are_told_from_counters() -> None:
    draw = random.Random(7)
    numbers = [draw.randrange(10**6, 10**8) for _ in range(50)]
    for names, kind in (
        ([f"eye_{number}_OD" for number in numbers], IDENTIFIER),
        ([f"eye_{1_000_000 + number}" for number in range(50)], None),
        ([f"{number:08d}" for number in range(50)], None),
        ([f"s_{draw.randrange(50, 99)}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}" for _ in numbers], DATE),
        ([f"s_{draw.randrange(100_000, 999_999)}" for _ in range(50)], None),
    ):  # fmt: skip
        judged = Judge()
        for name in names:
            judged.add([name])
        assert set(judged.told().kinds) == ({kind} if kind else set()), names[:3]


@pytest.mark.parametrize(
    "text",
    ["MRN 4711023", "patient_id_20391", "123-45-6789", "943 476 5919", "RSSMRA50A01H501U", "010150-123A",
     "19500101-1234", "j.smith@clinic.org", "1.2.840.113619.2.55.3", "Case No. 55012"],
)  # fmt: skip
def test_forms_of_identifiers_are_known(text: str) -> None:
    assert holds_identifier(text) or holds_date(text)


def test_patients_called_by_codes_are_harmless_and_by_names_or_numbers_are_not() -> None:
    def kinds(cells: list[str]) -> set[str]:
        judged = Judge()
        for place, cell in enumerate(cells):
            judged.add([f"{place}"], cell)
        return set(judged.told().kinds)

    assert kinds(["P001", "P002", "sub-03", "12", "S1", "A", "OAS30001"]) == set()
    assert kinds(["P001", "Kowalski"]) == {NAME}
    assert kinds(["4920031", "7710023", "1029384"]) == {IDENTIFIER}
    assert kinds(["GARCIA^JOSE^^^"]) == {NAME}


def test_folders_of_patients_taken_for_classes_are_seen() -> None:
    people = [f"{a.title()}_{b.title()}" for a, b in zip(CENSUS_SURNAMES, CENSUS_GIVEN, strict=True)]
    assert labels_of_people(people) == frozenset(people)
    assert labels_of_people(["AMD", "DME", "Smith_John"]) == {"Smith_John"}
    assert labels_of_people(["Kowalski", "Rodriguez", "Tanaka", "patient4"]) == {
        "Kowalski",
        "Rodriguez",
        "Tanaka",
        "patient4",
    }
    assert labels_of_people(["Wilson Disease", "Graves Ophthalmopathy", "Normal", "AMD"]) == frozenset()
