"""Finds the columns of a list (file, label, patient, ...) by their usual names, and reports ambiguous names.

Case, accents, spaces and punctuation of a header do not matter. An unknown column that looks like a patient,
a label or a part is an error: without it patients would silently get into two parts, or labels would be lost.
A column whose name begins with `x_` is ignored.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retfound_dist.errors import DataError
from retfound_dist.listing.table_files import CountKnownNames, Table, normalized_name

FIELDS: dict[str, str] = {
    "file": "file files filename filepath fname image imagefile imagename imagepath imagefilename img "
    "imgfile imgname imgpath imgfilename path relpath relativepath fullpath picture",
    "label": "label labels class classes classname classlabel diagnosis diagnoses dx disease category "
    "condition target groundtruth gt pathology",
    "patient": "patient patients patientid patientno patientnr patientnum patientnumber patientcode "
    "patientkey patientuid patientidentifier pat patid patno patnr patnum patnumber ptid pid "
    "subject subjects subjectid subjectno subjectnr subjectnum subjectnumber subjectcode subj "
    "subjid participant participantid person personid mrn medicalrecordnumber",
    "eye": "eye eyes laterality side eyeside eyelaterality odos osod",
    "volume": "volume volumeid volumename vol volid scan scanid acquisition acquisitionid series seriesid "
    "seriesuid seriesinstanceuid stack stackid cube cubeid",
    "slice": "slice sliceid sliceno slicenr slicenum slicenumber sliceindex bscan bscanid bscanno "
    "bscannumber bscanindex frame frameno framenr framenumber frameindex instancenumber",
    "split": "split set part partition subset fold traintest trainvaltest traintestsplit phase",
}
"""Field of an image -> plain names of its columns (see `table_files.normalized_name`)."""
SPLIT_FILE: dict[str, str] = {
    "key": f"key sample samplekey imagekey {FIELDS['file']}",
    "part": FIELDS["split"],
}
"""The columns of a split file."""
GUARDED_FIELDS = ("patient", "label", "split", "part")
"""Fields that must not be lost because of a spelling."""
# Recognized and refused, not read: nobody would notice a wrong guess in another language.
_OTHER_LANGUAGES = {
    "file": "datei dateiname dateipfad bild bilddatei bildname fichier nomfichier nomdefichier chemin "
    "archivo imagen nombrearchivo immagine arquivo imagem",
    "label": "diagnose klasse befund krankheit etikett diagnostic classe etiquette maladie diagnostico "
    "clase etiqueta enfermedad diagnosi classificazione",
    "patient": "patientin patientennummer patientennr proband probandin sujet identifiantpatient paciente "
    "idpaciente sujeto paziente idpaziente",
    "split": "teil aufteilung partie ensemble particion conjunto",
}
_STEMS = {
    "patient": ("patient", "subject", "participant", "proband"),
    "label": ("label", "class", "diagnos", "disease"),
}
_HARMLESS_WORDS = (
    *("age", "sex", "gender", "birth", "dob", "weight", "height", "race", "ethnic", "date", "year", "time"),
    *("count", "group", "history", "comment", "note", "type", "status", "source", "duration", "eye", "visit"),
    *("score", "prob", "confiden", "version", "quality", "onset", "reader", "grader", "annotator", "rater"),
    *("labeler", "labeller", "labeledby", "labelledby", "classifier", "city", "country", "smok"),
)
"""A name with such a word is not the patient or the label itself: `patient_age`, `label_date`."""
_DOUBTFUL_NAMES = (
    "id eyeid examid examinationid visitid sessionid case caseid caseno casenumber study studyid record "
    "recordid code individual identifier name"
)
"""Names that may mean the patient: refused where images share a value and no column is the patient."""
_IGNORED_PREFIXES = ("x_", "x-", "x ")


@dataclass(frozen=True)
class Columns:
    """The columns of a list."""

    positions: Mapping[str, int]
    """Field -> number of its column, from 0."""
    summary: str
    """`file <- 'Filename', label <- 'class'; not used: 'age'`."""
    requested: tuple[int, ...] = ()
    """Numbers of the columns that a setting named, in its order."""


def find_columns(
    table: Table,
    fields: Mapping[str, str],
    required: Sequence[str],
    example: str,
    requested: Sequence[str] = (),
) -> Columns:
    """Find the columns of `fields` in a table, and those that a setting named (`requested`).

    DataError where one of the `required` fields or a requested column is missing, or where a column is
    doubtful or there twice. `example`: a good header, for messages.
    """
    requested_positions = tuple(_requested_column(table, title) for title in requested)
    names = {plain: field for field, plains in fields.items() for plain in plains.split()}
    positions: dict[str, int] = {}
    unused = []
    for column, title in enumerate(table.header):
        field = None if title.lower().startswith(_IGNORED_PREFIXES) else names.get(normalized_name(title))
        if field is None:
            unused.append(column)
        elif field in positions:
            raise DataError(
                f"{table.name}: columns {table.header[positions[field]]!r} and {title!r} both mean "
                f"{field!r}: remove one, or call it {'x_' + title!r} so that it is not read"
            )
        else:
            positions[field] = column
    missing = [field for field in required if field not in positions]
    if missing:
        raise DataError(_missing_message(table, missing, positions, fields, example))
    # After all columns are known: `case_id` is harmless where another column is the patient.
    unused = [column for column in unused if column not in requested_positions]
    for column in unused:
        _check_doubtful(table, column, positions, fields)
    used = [f"{field} <- {table.header[column]!r}" for field, column in positions.items()]
    used += [repr(table.header[column]) for column in requested_positions if column not in positions.values()]
    used_text = ", ".join(used)
    others = [_with_nearest(table.header[column], names) for column in unused if table.header[column]]
    return Columns(
        positions, used_text + (f"; not used: {', '.join(others)}" if others else ""), requested_positions
    )


def _requested_column(table: Table, name: str) -> int:
    """The number of the column with this title, whatever its case and punctuation; DataError for none."""
    titles = list(table.header)
    if name in titles:
        return titles.index(name)
    plain = [normalized_name(title) for title in titles]
    if normalized_name(name) in plain:
        return plain.index(normalized_name(name))
    nearest = difflib.get_close_matches(normalized_name(name), plain, 1, 0.6)
    hint = f": did you mean {titles[plain.index(nearest[0])]!r}?" if nearest else ": add it, or leave it out"
    raise DataError(
        f"{table.name} has no column {name!r} (it has {', '.join(repr(title) for title in titles)}){hint}"
    )


def known_counter(fields: Mapping[str, str]) -> CountKnownNames:
    """A function that counts the cells of a row that are names of columns; `parse_table` needs it."""
    names = {plain for plains in fields.values() for plain in plains.split()}
    return lambda cells: sum(normalized_name(cell) in names for cell in cells)


def similar_field(title: str, fields: Mapping[str, str]) -> str | None:
    """The field that an unknown column's name resembles (a typing error, another language, `patient_xyz`); or
    None."""
    plain = normalized_name(title)
    if title.lower().startswith(_IGNORED_PREFIXES) or len(plain) < 3:
        return None
    for field in fields:
        if plain in _OTHER_LANGUAGES.get(field, "").split():
            return field
    if any(word in plain for word in _HARMLESS_WORDS if word not in ("eye", "age", "sex")) or _is_of_person(
        plain
    ):
        return None
    for field in fields:
        if any(stem in plain for stem in _STEMS.get(field, ())):
            return field
    for field, plains in fields.items():
        if any(_is_typing_error(plain, known) for known in plains.split()):
            return field
    return None


def _is_of_person(plain: str) -> bool:
    """Whether a name ends or begins with a trait of a person: `patientage`, `sexofpatient`,
    `eyeofpatient`."""
    # At the ends only: inside a word "age" also stands in `imagelabel`.
    words = ("age", "sex", "eye")
    return len(plain) > 4 and (plain.startswith(words) or plain.endswith(words))


def _is_typing_error(plain: str, known: str) -> bool:
    """Whether one edit, or two in a long name, turn one into the other: insert, delete, replace, swap."""
    allowed = 0 if len(known) < 5 else 1 if len(known) < 8 else 2
    if abs(len(plain) - len(known)) > allowed:
        return False
    return 0 < _distance(plain, known) <= allowed


def _distance(a: str, b: str) -> int:
    """Number of letters to insert, delete, replace or swap with a neighbour (Damerau and Levenshtein)."""
    # Not difflib's ratio: it counts two swapped letters, a usual typing error, as two faults.
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        row = [i]
        for j, other in enumerate(b, start=1):
            cost = min(row[j - 1] + 1, last[j] + 1, last[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def _check_doubtful(
    table: Table, column: int, positions: Mapping[str, int], fields: Mapping[str, str]
) -> None:
    """DataError where an unknown column may be the patient, or another field that protects the split.

    `column`: its position; `positions`: field -> position of the columns that were recognised; `fields`: the
    fields that a list may have.
    """
    title = table.header[column]
    field = similar_field(title, fields)
    if field in GUARDED_FIELDS and field not in positions:
        raise DataError(
            f"{table.name}: column {title!r} is not known and looks like {field!r}: call it {field!r}, or "
            f"{'x_' + title!r} if it is something else (columns x_... are not read)"
        )
    if (
        "patient" not in fields
        or "patient" in positions
        or normalized_name(title) not in _DOUBTFUL_NAMES.split()
    ):
        return
    if title.lower().startswith(_IGNORED_PREFIXES):
        return
    values = [cells[column] for _, cells in table.rows if len(cells) > column and cells[column]]
    # A value for each row is a number of the image. A value that images share may be their patient.
    if len(set(values)) < len(values):
        raise DataError(
            f"{table.name}: column {title!r} has the same value for several images and no column is the "
            f"patient: call it 'patient' if it is one, 'volume' if it is an eye, an examination or a scan, "
            f"or {'x_' + title!r} if its images may be in different parts (columns x_... are not read)"
        )


def _missing_message(
    table: Table,
    missing: Sequence[str],
    positions: Mapping[str, int],
    fields: Mapping[str, str],
    example: str,
) -> str:
    """The text of the error for a table without the columns `missing`; it names titles that look like them.

    `positions` and `fields`: as in `_check_doubtful`; `example`: a header that would do.
    """
    if not table.header:
        return f"{table.name} is empty: its first line must be a header such as {example}"
    titles = ", ".join(repr(title) for title in table.header)
    similar = {
        field: title
        for field in fields
        if field not in positions
        for title in reversed(table.header)
        if similar_field(title, fields) == field
    }
    hints = [f"{title!r} looks like {field!r}" for field, title in similar.items()]
    hint = f"; {', '.join(hints)}: rename them if so" if hints else ""
    return (
        f"{table.name} has no column {' and no column '.join(map(repr, missing))} (it has {titles}): "
        f"its header must be such as {example}{hint}"
    )


def _with_nearest(title: str, names: Mapping[str, str]) -> str:
    plain = normalized_name(title)
    nearest = (
        [] if title.lower().startswith(_IGNORED_PREFIXES) else difflib.get_close_matches(plain, names, 1, 0.8)
    )
    return f"{title!r} (nearest known: {names[nearest[0]]!r})" if nearest else repr(title)
