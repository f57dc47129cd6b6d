"""Whether the backbone's pretrained weights are at hand."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from lungdet_mmdet.diagnosis.findings import OK, WARN, Line
from lungdet_mmdet.offline import OFFLINE_VARIABLE, is_offline

RESNET50_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
TIMEOUT_S = 5


def check_weights(url: str = RESNET50_URL) -> Iterator[Line]:
    """Look for a weight file in torch's cache, and else ask its server for it."""
    import torch

    topic = "weights"
    ways_out = (
        f"download {url} elsewhere and give its local path in the config, "
        "or train without pretrained weights, or name another URL"
    )
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if cached.is_file():
        yield Line(OK, topic, f"pretrained ResNet-50 is in the cache: {cached}")
    elif is_offline():
        text = (
            f"pretrained ResNet-50 is not in the cache; {OFFLINE_VARIABLE} forbids looking for it"
        )
        yield Line(WARN, topic, text, ways_out)
    else:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            text = f"pretrained ResNet-50 cannot be reached: {error}"
            yield Line(WARN, topic, text, ways_out)
        else:
            yield Line(OK, topic, f"pretrained ResNet-50 can be downloaded from {url}")
