import logging
from types import SimpleNamespace

import pytest

from lungdet_mmdet.engine.hooks import PositivesWarningHook


class Slabs:
    """A dataset of slabs given by the ignore flags of their boxes."""

    def __init__(self, *flags):
        self.flags = flags

    def __len__(self):
        return len(self.flags)

    def get_data_info(self, index):
        return {"instances": [{"ignore_flag": flag} for flag in self.flags[index]]}


def runner(train, val):
    loader = None if val is None else SimpleNamespace(dataset=val)
    return SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=train),
        val_dataloader=loader,
        val_loop=loader,
        logger=logging.getLogger("positives"),
    )


POSITIVE = Slabs([], [1, 0])
NONE = Slabs([], [1])  # healthy, and a grazed nodule only


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        (POSITIVE, POSITIVE, []),
        (POSITIVE, NONE, ["validation"]),
        (NONE, POSITIVE, ["training"]),
        (NONE, Slabs(), ["training", "validation"]),
        (POSITIVE, None, []),
    ],
)
def test_sets_without_a_nodule_are_named(caplog, train, val, expected):
    PositivesWarningHook().before_train(runner(train, val))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(expected)
    for message, name in zip(messages, expected, strict=True):
        assert message.startswith(f"the {name} set has no slab with a nodule")
