import sys
from pathlib import Path

import pytest

FOR_WORKERS = Path(__file__).parent / "for_workers"


@pytest.fixture
def functions(monkeypatch):
    """The module of functions that worker processes can import."""
    monkeypatch.syspath_prepend(str(FOR_WORKERS))
    import scan_functions

    yield scan_functions
    sys.modules.pop("scan_functions", None)
