"""Every broken MetaImage: refused by name or used rightly, in a cohort and at inference."""

import pytest

from tests.faults.command_runs import check_outcome
from tests.faults.corpus import METAIMAGE

pytestmark = pytest.mark.reliability("fault corpus: MetaImage")


@pytest.mark.parametrize("fault", METAIMAGE, ids=lambda fault: fault.name)
def test_in_a_cohort(preparation, fault):
    check_outcome(preparation, fault)


@pytest.mark.parametrize("fault", METAIMAGE, ids=lambda fault: fault.name)
def test_at_inference(inference, fault):
    check_outcome(inference, fault)
