# SPDX-License-Identifier: Apache-2.0
"""Self-contained pages: one template engine, which escapes every text, and pictures as data."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lungdet_mmdet.errors import LungDetError

_FOLDER = Path(__file__).parent / "pages"


def render(template: str, **values: Any) -> str:
    """Return a page of ``reports/pages`` filled in; it needs no other file.

    Every value is escaped as text. Style sheets and scripts stand in files of their own, which the
    templates take in with ``source``.
    """
    return _environment().get_template(template).render(values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["source"] = _source
    return environment


def _source(name: str) -> Markup:
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))


def image_uri(content: bytes) -> str:
    """Return a PNG or JPEG as a data URI."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def encoded_jpeg(picture: np.ndarray, *, quality: int = 90, thin_colours: bool = True) -> bytes:
    """Return a picture as JPEG: a quarter of PNG's size on the noise of a lung.

    Parameters
    ----------
    picture : uint8 array, RGB (y, x, 3) or grey (y, x).
    quality : 0 to 100.
    thin_colours : keep colours at full resolution, for boxes that are thin coloured lines.

    Raises
    ------
    LungDetError
        If it cannot be encoded.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if thin_colours:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".jpg", picture, options)
    if not done:
        raise LungDetError(f"a picture of shape {picture.shape} cannot be encoded as JPEG")
    return encoded.tobytes()


def json_for_script(value: Any) -> Markup:
    """Return JSON that can stand within a script element whatever texts are in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
