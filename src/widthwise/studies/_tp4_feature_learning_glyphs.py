"""A few-shot pool of real characters: letters of many scripts in twelve typefaces, from fonts that Matplotlib carries.

It stands in for Omniglot, which no package holds: as there, a class is a character and its examples are hands. Each
example is turned, slanted, scaled and shifted at random, as handwriting is.
"""

import unicodedata
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from widthwise.core import DataError

FACES = tuple(
    f"DejaVu{family}{style}"
    for family, styles in (
        ("Sans", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("SansMono", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("Serif", ("", "-Bold", "-Italic", "-BoldItalic")),
    )
    for style in styles
)
SIDE = 14  # pixels
BLOCKS = ((0x41, 0x250), (0x370, 0x530))  # Latin, Greek, Cyrillic and their extensions
TURN, SCALE, SHIFT = 0.3, 0.2, 1.5  # radians, relative, pixels: half ranges of uniform draws


@lru_cache(maxsize=1)
def glyph_pool() -> tuple[Float[Tensor, "classes 12 196"], tuple[str, ...]]:
    """Characters drawn in every typeface, centred pixel by pixel and scaled to mean squared length one per image.

    Raises:
        DataError: the fonts are not where Matplotlib keeps them.
    """
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    missing = [face for face in FACES if not (folder / f"{face}.ttf").exists()]
    if missing:
        raise DataError(f"font {missing[0]}.ttf is not in {folder}; reinstall matplotlib, whose wheel carries it.")
    fonts = [ImageFont.truetype(str(folder / f"{face}.ttf"), SIDE - 3) for face in FACES]
    rng = np.random.default_rng(0)
    rows: dict[bytes, tuple[str, np.ndarray]] = {}
    for character in _letters():
        images = np.stack([_draw(font, character) for font in fonts])
        blank = images.reshape(len(fonts), -1).max(1) == 0
        if not blank.any():
            rows.setdefault(images[0].tobytes(), (character, images))  # look-alikes of other scripts count once
    unknown = [_draw(font, "\uffff") for font in fonts]
    kept = [(name, images) for name, images in rows.values() if not _has(images, unknown)]
    moved = np.stack([[_moved(image, rng) for image in images] for _, images in kept])
    pool = torch.from_numpy(moved).flatten(2).float() / 255
    pool = pool - pool.mean((0, 1))
    return pool / pool.square().sum(2).mean().sqrt(), tuple(name for name, _ in kept)


def _letters() -> list[str]:
    codes = [code for first, last in BLOCKS for code in range(first, last)]
    return [chr(code) for code in codes if unicodedata.category(chr(code)) in ("Lu", "Ll")]


def _draw(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray:
    image = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), character, fill=255, font=font, anchor="mm")
    return np.asarray(image)


def _moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned, slanted, scaled and shifted about the middle."""
    turn, slant = rng.uniform(-TURN, TURN, 2)
    size = 1 + rng.uniform(-SCALE, SCALE, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, slant], [0, 1]]) / size[:, None]
    middle = np.full(2, (SIDE - 1) / 2)
    offset = middle - matrix @ middle + rng.uniform(-SHIFT, SHIFT, 2)
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    moved = Image.fromarray(image).transform((SIDE, SIDE), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.asarray(moved)


def _has(images: np.ndarray, unknown: list[np.ndarray]) -> bool:
    """Whether a typeface drew the box for a character that it lacks."""
    return any(np.array_equal(one, box) for one, box in zip(images, unknown, strict=True))
