"""Every broken NRRD and NIfTI file."""

import pytest

from tests.faults.command_runs import check_outcome
from tests.faults.corpus import OTHER_FORMATS

pytestmark = pytest.mark.reliability("fault corpus: NRRD and NIfTI")


@pytest.mark.parametrize("fault", OTHER_FORMATS, ids=lambda fault: fault.name)
def test_at_inference(inference, fault):
    check_outcome(inference, fault)
