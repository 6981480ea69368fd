"""`worldloom inspect DATA`: the data card of a dataset, as text, JSON, a page or a picture."""

import io
import json as json_format
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text
from tyro.conf import Positional, arg

from worldloom.data.card.card import DataCard
from worldloom.data.card.contact_sheet import contact_sheet
from worldloom.data.card.figures import data_card, looking_size
from worldloom.data.card.page import card_page
from worldloom.data.card.tables import CardTable, card_tables
from worldloom.data.durable import replacing
from worldloom.data.source import FORMATS, open_dataset
from worldloom.errors import UserError
from worldloom.flags import named
from worldloom.limits import at_least, check_limits


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """The data card: what a dataset holds and what is wrong with it. Every episode is read.

    Broken episodes are listed and do not stop the card; the exit code is 2 only when nothing can be read.
    """

    data: Positional[Path]
    """A dataset of any known format."""
    json: bool = False
    """Print the card as JSON instead of text."""
    html: Path | None = None
    """Also write the card as one self-contained page to this file."""
    picture: Path | None = None
    """Also write a contact sheet, frames of several episodes, to this PNG file."""
    skip_broken: bool = False
    """Leave broken episodes out of the counts too, as training with --skip-broken does."""
    image_size: Annotated[int, at_least(0)] = 128
    """Look at pictures with their longer side shrunk to this many pixels; 0 takes their own size."""
    format: Annotated[str | None, named(FORMATS, "The dataset's format, when it is not recognised")] = None


def inspect(settings: Annotated[InspectSettings, arg(name="")]) -> None:
    """The data card: what a dataset holds and what is wrong with it. Every episode is read."""
    check_limits(settings)
    source = open_dataset(settings.data, settings.format)
    _require_outside(settings.data, [file for file in (settings.html, settings.picture) if file])
    size = looking_size(source.spec, settings.image_size)
    card = data_card(source, settings.skip_broken, size)
    print_json(card) if settings.json else print_text(card)
    if settings.html or settings.picture:
        broken = {problem["episode"] for problem in card.broken}
        sheet = contact_sheet(source, [i for i in range(len(source.episodes)) if i not in broken], size)
        if settings.html:
            _write(settings.html, card_page(card, sheet).encode())
        if settings.picture:
            _write_picture(settings.picture, sheet, settings.data)


def print_json(card: DataCard) -> None:
    """The card on stdout."""
    print(json_format.dumps(card.to_json(), indent=1, default=str))


def print_text(card: DataCard) -> None:
    """The card as tables; plain and unfolded when stdout is not a terminal."""
    console = Console() if sys.stdout.isatty() else Console(width=240, highlight=False)
    for table in card_tables(card):
        console.print(Text(table.title, "bold"))
        console.print(_drawn(table, console.is_terminal))
        if table.remark:
            console.print(Text(f"  {table.remark}", "dim"))
        console.print()


def _drawn(table: CardTable, on_terminal: bool) -> RichTable:
    box = SIMPLE_HEAD if table.header and on_terminal else None
    drawn = RichTable(box=box, show_header=bool(table.header), pad_edge=True, padding=(0, 2, 0, 1))
    for i in range(len(table.rows[0])):
        drawn.add_column(table.header[i] if table.header else "", style="dim" if i == 0 and not table.header else "")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _require_outside(data: Path, files: list[Path]) -> None:
    """A dataset's own files are never written over."""
    for file in files:
        if file.is_dir():
            raise UserError(f"{file} is a folder. Give the name of a file.")
        if not file.absolute().parent.is_dir():
            raise UserError(f"{file}: its folder does not exist. Make it first.")
        if file.exists() and file.resolve().is_relative_to(data.resolve()):
            raise UserError(f"{file} is the dataset itself, or a file of it. Give another name.")


def _write_picture(file: Path, sheet: Image.Image | None, data: Path) -> None:
    if sheet is None:
        raise UserError(f"{data} has no camera, so there is no contact sheet to write to {file}.")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    _write(file, buffer.getvalue())


def _write(file: Path, content: bytes) -> None:
    try:
        with replacing(file) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}).") from error
    print(f"wrote {file}", file=sys.stderr)
