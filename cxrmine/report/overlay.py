"""Pictures of boxes on films, for eyes: a contact sheet of cases."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cxrmine.files import write_bytes

TRUTH = (255, 190, 40)
MINED = ((60, 230, 120), (60, 190, 230), (150, 150, 240))  # by rank
PAPER, INK, FAINT = (18, 18, 20), (235, 235, 235), (150, 150, 155)
SIDE, GAP, CAPTION, COLUMNS = 256, 10, 40, 3


@dataclass(frozen=True)
class Case:
    """One pair to show. Boxes are in pixels of the film as given."""

    film: np.ndarray  # uint8 H×W
    map: np.ndarray  # h×w, 0..1, over the whole film
    mined: np.ndarray  # n×4, best first
    truth: np.ndarray  # m×4
    title: str
    subtitle: str


def contact_sheet(cases: Sequence[Case], heading: str) -> Image.Image:
    """Each case twice, side by side: the film with its boxes, and the film under its map."""
    cell_width, cell_height = 2 * SIDE + 2, SIDE + CAPTION
    rows = -(-len(cases) // COLUMNS)
    width = COLUMNS * (cell_width + GAP) + GAP
    sheet = Image.new("RGB", (width, rows * (cell_height + GAP) + GAP + 56), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 8), heading, INK, font(19))
    _legend(draw, GAP, 33)
    for i, case in enumerate(cases):
        x = GAP + (i % COLUMNS) * (cell_width + GAP)
        y = 56 + GAP + (i // COLUMNS) * (cell_height + GAP)
        draw.text((x, y), case.title, INK, font(15))
        draw.text((x, y + 19), case.subtitle, FAINT, font(13))
        sheet.paste(boxed(case), (x, y + CAPTION))
        sheet.paste(heated(case), (x + SIDE + 2, y + CAPTION))
    return sheet


def _legend(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    entries = [("truth", TRUTH), *((f"mined, rank {i + 1}", colour) for i, colour in enumerate(MINED))]
    for text, colour in entries:
        draw.rectangle((x, y + 4, x + 16, y + 14), outline=colour, width=2)
        draw.text((x + 22, y), text, FAINT, font(13))
        x += 40 + int(draw.textlength(text, font(13)))
    draw.text((x, y), "left: film and boxes; right: the map, from clear (0) to red (1)", FAINT, font(13))


def boxed(case: Case) -> Image.Image:
    """The film with truth and mined boxes; lower ranks below higher ones, truth on top."""
    picture = Image.fromarray(_fitted(case.film)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    scale = np.tile((SIDE / case.film.shape[1], SIDE / case.film.shape[0]), 2)
    for rank in reversed(range(len(case.mined))):
        _rectangle(draw, case.mined[rank] * scale, MINED[min(rank, len(MINED) - 1)], 2 if rank == 0 else 1)
    for box in case.truth:
        _rectangle(draw, box * scale, TRUTH, 2)
    return picture


def heated(case: Case) -> Image.Image:
    """The film under its map: the stronger, the redder and the less transparent."""
    film = np.repeat(_fitted(case.film)[:, :, None], 3, axis=2).astype(np.float32)
    heat = np.clip(cv2.resize(case.map.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), 0, 1)
    colour = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO)[:, :, ::-1].astype(np.float32)
    weight = 0.65 * np.sqrt(heat)[:, :, None]
    return Image.fromarray((film * (1 - weight) + colour * weight).astype(np.uint8))


def _fitted(film: np.ndarray) -> np.ndarray:
    shrinks = film.shape[0] > SIDE
    return cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _rectangle(draw: ImageDraw.ImageDraw, box: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    left, top, right, bottom = box
    draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def save_png(picture: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    write_bytes(path, buffer.getvalue())
