"""What kind of agreement a hit is: a copy, an edited copy, or a twin with other numbers or names."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

COPY, EDITED, TWIN, PARAPHRASE = "copy", "edited", "twin", "paraphrase"
COPY_SCORE = 0.98


def classes(score_H: npt.NDArray[np.float64], difference_H: npt.NDArray[np.int64]) -> list[str]:
    """The class of each hit from its similarity and `differences`. In a twin the row has another number or name in
    place of at least one of the item's; and either as many such places as plain words that differ, with four fifths of
    the plain words agreeing, or half of all numbers and names and at least two, with three fifths agreeing."""
    plain, agreeing, names, other, _, more = difference_H[:, :6].T
    close = (other >= 1) & (other >= plain - agreeing + np.maximum(0, more - 2) // 2) & (5 * agreeing >= 4 * plain)
    template = (other >= 2) & (2 * other >= names) & (5 * agreeing >= 3 * plain)
    found = np.where(close | template, TWIN, np.where(score_H >= COPY_SCORE, COPY, EDITED))
    return found.tolist()  # type: ignore[no-any-return]
