"""ROC curves as points in a CSV, and as a picture: a panel a table of probabilities, a line a finding."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cxrmine.files import write_text
from cxrmine.report.overlay import font, save_png
from cxrmine.scoring.roc import Curve, Points

HEADER = ("method", "finding", "false_positive_rate", "true_positive_rate", "threshold")
PAPER, INK, FAINT, GRID, CHANCE = (255, 255, 255), (25, 25, 30), (105, 105, 115), (226, 226, 232), (165, 165, 175)
COLOURS = (
    (31, 90, 180), (214, 90, 20), (20, 140, 80), (190, 30, 70), (120, 70, 180), (20, 150, 175), (150, 110, 20),
)  # fmt: skip
DASHES: tuple[tuple[float, ...], ...] = ((), (11.0, 5.0), (2.5, 4.0))  # on and off in pixels, for seven findings each
SIDE, RIM, FINE = 570, 3, 4  # of the square in pixels; how much finer lines are drawn than they are shown
LEFT, TITLE, BELOW, GAP, MARGIN = 66, 50, 58, 22, 18
SWATCH, ROW = 34, 23  # of the legend
NARROWEST = 900
Floats = npt.NDArray[np.float64]
Colour = tuple[int, int, int]
Style = tuple[Colour, tuple[float, ...]]


def write(path: Path, curves: Sequence[Curve]) -> None:
    """The points where the path ends in .csv, the picture where it ends in .png."""
    if path.suffix.lower() == ".csv":
        write_text(path, as_csv(curves))
    else:
        save_png(picture(curves), path)


def as_csv(curves: Sequence[Curve]) -> str:
    """A line a point, from (0, 0) at threshold inf to (1, 1); at or above the threshold an image is called positive."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for method, finding, points in curves:
        if points is not None:
            columns = (*(rate.tolist() for rate in points.rates), points.thresholds.tolist())
            writer.writerows((method, finding, *row) for row in zip(*columns, strict=True))
    return text.getvalue()


def picture(curves: Sequence[Curve]) -> Image.Image:
    """The panels, one below the other; a finding has the same line in all of them."""
    panels: dict[str, dict[str, Points]] = {}
    for method, finding, points in curves:
        if points is not None:
            panels.setdefault(method, {})[finding] = points
    findings = list(dict.fromkeys(finding for of in panels.values() for finding in of))
    styles = {
        finding: (COLOURS[k % len(COLOURS)], DASHES[k // len(COLOURS) % len(DASHES)])
        for k, finding in enumerate(findings)
    }
    entry = SWATCH + 60 + max(int(font(15).getlength(finding)) for finding in findings)
    rows = SIDE // ROW - 1
    width = max(NARROWEST, LEFT + SIDE + -(-len(findings) // rows) * (GAP + entry) + MARGIN)
    height = TITLE + SIDE + BELOW
    sheet = Image.new("RGB", (width, height * len(panels)), PAPER)
    for k, (method, of) in enumerate(panels.items()):
        _panel(sheet, k * height, method, of, styles)
        _legend(sheet, k * height + TITLE, of, styles, entry, rows)
    return sheet


def _panel(sheet: Image.Image, top: int, method: str, of: dict[str, Points], styles: dict[str, Style]) -> None:
    draw, y = ImageDraw.Draw(sheet), top + TITLE
    mean = sum(points.area for points in of.values()) / len(of)
    over = f"   mean AUC {mean:.3f} over {len(of)} findings" if len(of) > 1 else ""
    room = sheet.width - LEFT - MARGIN - font(19).getlength(over)
    draw.text((LEFT, y - 12), _shortened(method, room) + over, INK, font(19), anchor="ls")
    sheet.paste(_square(of, styles), (LEFT - RIM, y - RIM))
    for k in range(0, 11, 2):
        at, said = k * SIDE / 10, f"{k / 10:.1f}"
        draw.text((LEFT - 8, y + SIDE - at), said, FAINT, font(15), anchor="rm")
        draw.text((LEFT + at, y + SIDE + 6), said, FAINT, font(15), anchor="mt")
    draw.text((LEFT + SIDE / 2, y + SIDE + 28), "false positive rate", INK, font(16), anchor="mt")
    upright = Image.new("RGB", (SIDE, 24), PAPER)
    ImageDraw.Draw(upright).text((SIDE / 2, 12), "true positive rate", INK, font(16), anchor="mm")
    sheet.paste(upright.rotate(90, expand=True), (6, y))


def _square(of: dict[str, Points], styles: dict[str, Style]) -> Image.Image:
    """The unit square with its curves, drawn large and shrunk: Pillow's lines have hard edges.

    A strip of RIM pixels around it lets curves that run along its sides be seen whole.
    """
    side = (SIDE + 2 * RIM) * FINE
    large = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(large)
    for k in range(0, 11, 2):
        at, colour = k * SIDE / 10, FAINT if k in (0, 10) else GRID
        _line(draw, np.array([[at, 0.0], [at, SIDE]]), (colour, ()), 1)
        _line(draw, np.array([[0.0, at], [SIDE, at]]), (colour, ()), 1)
    _line(draw, np.array([[0.0, SIDE], [SIDE, 0.0]]), (CHANCE, (6.0, 6.0)), 1)
    for finding, points in of.items():
        false, true = points.rates
        _line(draw, np.stack([false, 1 - true], axis=1) * SIDE, styles[finding])
    return large.resize((SIDE + 2 * RIM, SIDE + 2 * RIM), Image.Resampling.LANCZOS)


def _line(draw: ImageDraw.ImageDraw, corners: Floats, style: Style, width: int = 2) -> None:
    colour, dashes = style
    for piece in _pieces(corners + RIM, dashes):
        draw.line((piece * FINE).ravel().tolist(), colour, width * FINE, joint="curve")


def _pieces(corners: Floats, dashes: tuple[float, ...]) -> Iterator[Floats]:
    """A line cut into its dashes; the whole of it where there are none."""
    if not dashes:
        yield corners
        return
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    for start in np.arange(0, along[-1], sum(dashes)):
        end = min(start + dashes[0], along[-1])
        at = np.concatenate([[start], along[(along > start) & (along < end)], [end]])
        yield np.stack([np.interp(at, along, corners[:, axis]) for axis in (0, 1)], axis=1)


def _legend(
    sheet: Image.Image, top: int, of: dict[str, Points], styles: dict[str, Style], entry: int, rows: int
) -> None:
    """Name and AUC of each finding, in columns of `rows` beside the square."""
    draw = ImageDraw.Draw(sheet)
    for k, (finding, points) in enumerate(of.items()):
        x = LEFT + SIDE + GAP + k // rows * (entry + GAP)
        y = top + (k % rows + 1) * ROW + ROW // 2
        if k % rows == 0:
            draw.text((x + entry, y - ROW), "AUC", FAINT, font(15), anchor="rm")
        swatch = Image.new("RGB", ((26 + 2 * RIM) * FINE, 2 * RIM * FINE), PAPER)
        _line(ImageDraw.Draw(swatch), np.array([[0.0, 0.0], [26.0, 0.0]]), styles[finding])
        sheet.paste(swatch.resize((26 + 2 * RIM, 2 * RIM), Image.Resampling.LANCZOS), (x - RIM, y - RIM))
        draw.text((x + SWATCH, y), finding, INK, font(15), anchor="lm")
        draw.text((x + entry, y), f"{points.area:.3f}", INK, font(15), anchor="rm")


def _shortened(name: str, room: float) -> str:
    """The end of a name that is too long: a path's first folders say least."""
    if font(19).getlength(name) <= room:
        return name
    ends = (f"...{name[k:]}" for k in range(1, len(name)))
    return next((end for end in ends if font(19).getlength(end) <= room), "")
