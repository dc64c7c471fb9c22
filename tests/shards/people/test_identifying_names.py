"""Whether names, dates and identifiers are told from classes and counters: both kinds of mistake, counted."""

import random

from shards.people.dates_and_numbers import holds_date, holds_identifier
from shards.people.identifying_names import DATE, IDENTIFIER, NAME, SignCounter, labels_of_people
from shards.people.person_names import holds_person, is_surely_person
from tests.shards.names_of_people import (
    CENSUS_GIVEN,
    CENSUS_SURNAMES,
    CLASSES,
    FILES,
)


def test_no_class_of_eyes_is_taken_for_a_person_and_few_are_where_files_are_called_so() -> None:
    assert [
        name for name in CLASSES if is_surely_person(name) or holds_date(name) or holds_identifier(name)
    ] == []
    wrong = [name for name in CLASSES if holds_person(name)]
    assert len(wrong) <= 0.03 * len(CLASSES), wrong  # Wilson's and Graves' diseases
    assert labels_of_people(CLASSES[:30]) == frozenset()


def test_no_file_of_a_public_set_is_taken_for_a_person_a_date_or_an_identifier() -> None:
    for name in FILES:
        judged = SignCounter()
        judged.add([name])
        assert judged.signs().is_harmless, name


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
        judged = SignCounter()
        for name in names:
            judged.add([name])
        assert set(judged.signs().kinds) == ({kind} if kind else set()), names[:3]


def test_patients_called_by_codes_are_harmless_and_by_names_or_numbers_are_not() -> None:
    def kinds(cells: list[str]) -> set[str]:
        judged = SignCounter()
        for place, cell in enumerate(cells):
            judged.add([f"{place}"], cell)
        return set(judged.signs().kinds)

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
