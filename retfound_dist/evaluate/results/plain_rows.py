"""Splits rows of CSV as this software writes most of them: no quotes, and probabilities in the last cells.

They are split as whole blocks of bytes, in a third of the time that the csv module and `float` take. Rows of
any other form are not split, and the caller reads them with the csv module.

Shapes: B rows of a block, C columns of probabilities, L bytes of a row's probabilities.
"""

from __future__ import annotations

import numpy as np

from retfound_dist.evaluate.scores.metrics import DIGITS, Floats

WIDTH = DIGITS + 3
"""Bytes of a comma and a probability after it, such as `,0.123457`."""
_COMMA, _POINT, _ZERO, _LINE_END = b",.0\n"
_SPECIAL = (b'"', b"\r", b"\0")
"""Bytes that the csv module treats in a way of its own."""


def split_rows(data: bytes, cells: int, probabilities: int) -> tuple[list[list[str]], Floats] | None:
    """The columns of text, and the probabilities (B, C); None where a row has another form.

    `data`: whole rows, each with its line end. `cells`: number of cells in a row, of which the last ones are
    `probabilities`. UnicodeDecodeError where the text is not UTF-8.
    """
    bytes_N = np.frombuffer(data, np.uint8)
    ends_B = np.flatnonzero(bytes_N == _LINE_END)
    starts_B = np.append(0, ends_B[:-1] + 1)
    length = probabilities * WIDTH
    if any(each in data for each in _SPECIAL) or not len(ends_B) or ends_B[-1] != len(data) - 1:
        return None
    if (ends_B - starts_B).min() < length:
        return None
    places_BL = ends_B[:, None] + np.arange(-length, 0)
    values_BC = _probabilities(bytes_N[places_BL].reshape(len(ends_B), probabilities, WIDTH))
    # The number of commas before each line end.
    commas_B = np.searchsorted(np.flatnonzero(bytes_N == _COMMA), ends_B)
    if values_BC is None or (commas_B != (cells - 1) * np.arange(1, len(ends_B) + 1)).any():
        return None
    is_text_N = np.ones(len(data), bool)
    is_text_N[places_BL] = False
    text = bytes_N[is_text_N].tobytes().decode()
    values, columns = text.replace("\n", ",").split(","), cells - probabilities
    return [values[column : len(ends_B) * columns : columns] for column in range(columns)], values_BC


def _probabilities(bytes_BCW: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Floats | None:
    """The numbers, equal to those of `float`; None where one has another form than `,0.123457`."""
    if (bytes_BCW[..., 0] != _COMMA).any() or (bytes_BCW[..., 2] != _POINT).any():
        return None
    whole_BC = np.zeros(bytes_BCW.shape[:2], np.int32)
    for place in (1, *range(3, WIDTH)):
        digits_BC = bytes_BCW[..., place] - np.uint8(_ZERO)  # other bytes give more than 9, also those below
        if (digits_BC > 9).any():
            return None
        whole_BC = whole_BC * 10 + digits_BC
    # Both numbers are exact, and a division is rounded once, as `float` rounds.
    quotient_BC: Floats = whole_BC / 10**DIGITS
    return quotient_BC
