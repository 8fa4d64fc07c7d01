"""Numbers as CSV, and pictures of them: files that are whole or not there."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glsk.requiring import requiring
from glsk.training.atomic import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
FORMATS = (".png", ".pdf", ".svg")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rows of the same keys as a CSV file. Raises OSError naming it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, inches, that no window shows. Raises MissingPackageError without matplotlib."""
    with requiring("a picture"):
        from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def check_picture(path: Path) -> None:
    """Before any work: can a picture of that name be written? Raises ValueError, MissingPackageError."""
    if path.suffix not in FORMATS:
        raise ValueError(f"--out: {path}: expected a name that ends in {', '.join(FORMATS)}")
    new_figure(1, 1)


def write_figure(path: Path, figure: "Figure") -> None:
    """The figure as ``path``'s suffix says. Raises OSError naming it."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=150)
    write_bytes(path, content.getvalue())
