"""All checks in order, the later ones only where the earlier ones allow them."""

from __future__ import annotations

from collections.abc import Iterator

from lungdet_mmdet.diagnosis.findings import FAIL, Line
from lungdet_mmdet.diagnosis.hardware import check_attention, check_devices
from lungdet_mmdet.diagnosis.installed import (
    MM_MODULES,
    check_extras,
    check_imports,
    check_versions,
    describe_platform,
)
from lungdet_mmdet.diagnosis.weights import check_weights


def examine() -> Iterator[Line]:
    """Run every check; those that need the stack only where it can be imported."""
    yield describe_platform()
    yield from check_versions()
    import_lines = list(check_imports())
    yield from import_lines
    # A version out of range may still work: what decides is whether the imports do.
    broken = {line.topic for line in import_lines if line.level == FAIL}
    if "torch" not in broken:
        yield from check_devices()
        yield from check_weights()
        if not broken.intersection(MM_MODULES):
            yield from check_attention()
    yield from check_extras()
