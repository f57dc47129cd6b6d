"""Whether the network may be used: one reading of LUNGDET_OFFLINE for everything that could."""

from __future__ import annotations

import os

OFFLINE_VARIABLE = "LUNGDET_OFFLINE"


def is_offline() -> bool:
    """Whether LUNGDET_OFFLINE is set to anything but nothing or 0, which forbids network access."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip() not in ("", "0")
