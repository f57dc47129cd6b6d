"""Sound files of what is no chest CT, or an odd one."""

import pytest

from tests.faults.command_runs import check_outcome
from tests.faults.corpus import VOLUMES

pytestmark = pytest.mark.reliability("fault corpus: volumes")


@pytest.mark.parametrize("fault", VOLUMES, ids=lambda fault: fault.name)
def test_in_a_cohort(preparation, fault):
    check_outcome(preparation, fault)


@pytest.mark.parametrize("fault", VOLUMES, ids=lambda fault: fault.name)
def test_at_inference(inference, fault):
    check_outcome(inference, fault)
