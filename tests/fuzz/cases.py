"""How many cases the fuzzing tries, and how many it has tried.

The normal tests try a few and always the same; ``make fuzz`` sets LUNGDET_FUZZ_EXAMPLES, and every
run of it tries others.
"""

from __future__ import annotations

import os
from collections import Counter

from hypothesis import HealthCheck, settings

EXAMPLES_VARIABLE = "LUNGDET_FUZZ_EXAMPLES"
FEW = 60
# What `make fuzz` promises; each kind of input takes its share.
LEAST_CASES = 20_000
IS_LONG = EXAMPLES_VARIABLE in os.environ
EXAMPLES = int(os.environ.get(EXAMPLES_VARIABLE, FEW))
TRIED: Counter[str] = Counter()


def fuzzed(*, share: float = 1.0) -> settings:
    """Return the settings of a property; slow ones try a smaller share of the cases."""
    return settings(
        max_examples=max(5, int(EXAMPLES * share)),
        deadline=None,
        derandomize=not IS_LONG,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
