"""Model files with random bytes changed: read as they were, or refused with a sentence."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lungdet_mmdet.apis.model_file import read_model_file, write_model_file
from lungdet_mmdet.errors import LungDetError
from tests.fuzz.cases import TRIED, fuzzed
from tests.support.untrained_model import untrained_model

pytestmark = pytest.mark.reliability("fuzzing: model files")


@pytest.fixture(scope="module")
def model():
    """A model whose weights are a few numbers: bytes of every part of the file get their turn."""
    weights = {f"layer{n}.weight": torch.arange(8.0) + n for n in range(3)}
    return replace(untrained_model(), state_dict=weights)


@pytest.fixture(scope="module")
def whole(model, fuzz_dir):
    write_model_file(fuzz_dir / "whole.pth", model)
    return (fuzz_dir / "whole.pth").read_bytes()


@fuzzed()
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    kept=st.sampled_from([1.0, 1.0, 1.0, 0.99, 0.5, 0.01]),
    trust=st.booleans(),
)
def test_changed_bytes_are_refused_or_mean_nothing(fuzz_dir, model, whole, changes, kept, trust):
    content = bytearray(whole)
    for place, value in changes:
        content[min(int(place * len(content)), len(content) - 1)] = value
    path = fuzz_dir / "changed.pth"
    path.write_bytes(content[: int(kept * len(content))])
    TRIED["model files"] += 1
    refused = ""
    try:
        found = read_model_file(path, trust=trust)
    except LungDetError as error:
        refused = str(error)
    if refused:
        assert str(path) in refused
        return
    # Padding and dates of the archive may change without a word; nothing else.
    assert found.config == model.config
    for name, value in model.state_dict.items():
        assert torch.equal(found.state_dict[name], value)
