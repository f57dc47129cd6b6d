import re

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import (
    PHANTOM_UID_PREFIX,
    is_phantom_uid,
    is_semireal_uid,
    phantom_uid,
    semireal_uid,
)


def test_uid_is_the_prefix_size_seed_and_index():
    uid = phantom_uid(size="full", seed=42, index=7)
    assert uid == f"{PHANTOM_UID_PREFIX}.2.42.1000007"


def test_uid_is_a_valid_dicom_uid_for_the_largest_seed():
    uid = phantom_uid(size="small", seed=2**63 - 1, index=999_999)
    assert len(uid) <= 64
    assert re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", uid)


def test_own_uids_are_recognised_and_real_ones_are_not():
    assert is_phantom_uid(phantom_uid(size="small", seed=0, index=0))
    assert not is_phantom_uid("1.3.6.1.4.1.14519.5.2.1.6279.6001.170706757615202213033480003264")
    assert not is_phantom_uid(PHANTOM_UID_PREFIX + "1.1.0.1000000")  # a longer component


def test_negative_seed_is_refused():
    with pytest.raises(LungDetError, match="-1"):
        phantom_uid(size="small", seed=-1, index=0)


def test_semireal_uids_are_valid_and_are_neither_phantoms_nor_real():
    uid = semireal_uid(seed=2**63 - 1, digest=2**32 - 1, variant=999)
    assert len(uid) <= 64
    assert re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", uid)
    assert is_semireal_uid(uid)
    assert not is_phantom_uid(uid)
    assert not is_semireal_uid(phantom_uid(size="small", seed=0, index=0))


def test_negative_semireal_seed_is_refused():
    with pytest.raises(LungDetError, match="-2"):
        semireal_uid(seed=-2, digest=1, variant=0)
