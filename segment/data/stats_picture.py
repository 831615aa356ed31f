"""A data set's counts as one picture: bars for each class, and which classes meet in photos."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segment.data.stats import Stats

_ROW, _BAR, _GAP = 24, 190, 26  # pixels
_INK, _FAINT = (30, 30, 30), (225, 225, 225)


def draw(stats: Stats) -> Image.Image:
    """Draw the counts.

    Args:
        stats: The counts.

    Returns:
        RGB. Bars are on a logarithmic scale, for classes of litter differ by a hundredfold. A cell
        of the matrix says how many of the photos with the row's class also show the column's, %.
    """
    names = stats.taxonomy.classes
    font = ImageFont.load_default(13)
    label = int(max(font.getlength(name) for name in names)) + 12
    side = _ROW * len(names)
    cell = max(_ROW, 34)
    left = _GAP + label + 3 * (_BAR + _GAP)
    top = label + _GAP  # the columns' names stand upright
    size = (left + cell * len(names) + _GAP, top + side + _GAP)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for c, name in enumerate(names):
        pen.text((_GAP, top + c * _ROW + 4), name, _INK, font)
    photos = stats.together.diagonal()
    columns = [("pixels", stats.pixels), ("objects", np.array(stats.objects)), ("photos", photos)]
    for place, (title, counts) in enumerate(columns):
        x = _GAP + label + place * (_BAR + _GAP)
        pen.text((x, top - 22), f"{title} (log)", _INK, font)
        most = np.log1p(max(1, int(counts.max())))
        for c, number in enumerate(counts.tolist()):
            y = top + c * _ROW
            pen.rectangle((x, y + 3, x + _BAR, y + _ROW - 3), _FAINT)
            if number:
                end = x + max(1, round(_BAR * float(np.log1p(number) / most)))
                pen.rectangle((x, y + 3, end, y + _ROW - 3), stats.taxonomy.colors[c], _INK)
            text = f"{number:,}"
            start = x + _BAR - 4 - font.getlength(text)
            pen.rectangle((start - 3, y + 5, x + _BAR - 2, y + _ROW - 5), "white")
            pen.text((start, y + 4), text, _INK, font)
    share = stats.together / np.maximum(1, photos)[:, None]
    for row in range(len(names)):
        _upright(picture, names[row], (left + row * cell + cell // 2 - 8, top - 6), font)
        for column in range(len(names)):
            x, y = left + column * cell, top + row * _ROW
            value = float(share[row, column])
            shade = tuple(round(255 - value * (255 - low)) for low in (20, 80, 150))
            pen.rectangle((x, y, x + cell - 1, y + _ROW - 1), shade)
            text = f"{100 * value:.0f}" if photos[row] else ""
            ink = "white" if value > 0.55 else _INK
            pen.text((x + (cell - font.getlength(text)) / 2, y + 4), text, ink, font)
    pen.text((_GAP, 8), f"{stats.photos:,} photos, taxonomy {stats.taxonomy.name}", _INK, font)
    pen.text((_GAP, 28), "right: % of the photos with the row's class that show", _INK, font)
    pen.text((_GAP, 44), "the column's too", _INK, font)
    return picture


def _upright(
    picture: Image.Image,
    text: str,
    foot: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write text upwards, ending above `foot`."""
    line = Image.new("RGB", (int(font.getlength(text)) + 2, 18), "white")
    ImageDraw.Draw(line).text((0, 1), text, _INK, font)
    turned = line.rotate(90, expand=True)
    picture.paste(turned, (foot[0], foot[1] - turned.height))
