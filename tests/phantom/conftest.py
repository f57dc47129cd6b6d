"""Phantoms built once for all tests of this folder."""

import pytest

from lungdet_mmdet.phantom.scan import build_scan


@pytest.fixture(scope="session")
def small_scan():
    return build_scan(5, size="small")
