"""Every broken DICOM folder, read for inference and converted to LUNA16's layout."""

import pytest

from tests.faults.command_runs import check_outcome
from tests.faults.corpus import DICOM

pytestmark = pytest.mark.reliability("fault corpus: DICOM")


@pytest.mark.parametrize("fault", DICOM, ids=lambda fault: fault.name)
def test_at_inference(inference, fault):
    check_outcome(inference, fault)


@pytest.mark.parametrize("fault", DICOM, ids=lambda fault: fault.name)
def test_in_a_conversion(conversion, fault):
    check_outcome(conversion, fault)
