"""Names of people in names of files and folders: both kinds of mistake, counted."""

from collections.abc import Callable

import pytest

from shards.people.person_names import holds_person, is_person, is_surely_person, plain_letters
from tests.shards.names_of_people import (
    CENSUS_GIVEN,
    CENSUS_SURNAMES,
    EASTERN_GIVEN,
    EASTERN_SURNAMES,
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


def test_two_known_names_are_a_person_however_they_are_parted_and_a_disease_is_none() -> None:
    for text in ("Smith_John", "SMITH^JOHN", "JohnSmith", "Smith, John", "John-Smith 003"):
        assert is_surely_person(text), text
    for text in ("Wilson Disease", "Drusen", "Optic Disc Cube", "Macular Hole"):
        assert not is_surely_person(text), text


def test_one_word_names_a_patient_only_where_a_patient_is_named() -> None:
    assert is_person("Kowalski")
    assert not holds_person("Kowalskix_OD")
    assert not any(is_person(code) for code in ("P001", "sub-03", "A", "12", "OD"))


def test_accents_and_letters_of_other_alphabets_have_a_plain_form() -> None:
    assert plain_letters("Szczepański") == "szczepanski"
    assert plain_letters("GARCÍA") == "garcia"
    assert plain_letters("Łukasz Strauß Øster") == "lukasz strauss oster"


def test_an_initial_counts_beside_a_name_and_the_side_of_an_eye_does_not() -> None:
    assert holds_person("Fernsby_J")
    assert not holds_person("Fernsby_L")
    assert not holds_person("Drusen_R")
