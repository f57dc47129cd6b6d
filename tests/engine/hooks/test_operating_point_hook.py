"""A tiny model whose score tells at which step it was saved: score = steps / 100."""

import json

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner

import lungdet_mmdet.plugin  # noqa: F401
from lungdet_mmdet.scoring.slab_scores import operating_point_of

IMAGE = {
    "seriesuid": "a", "width": 100, "height": 100, "spacing": [1, 1, 7.5], "origin": [0, 0, 0],
    "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
}  # fmt: skip
STEPS_PER_EPOCH = 2


class CountingModel(BaseModel):
    """Counts its training steps and finds the nodule of slab 1 with that score."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode="tensor"):
        if mode == "loss":
            self.steps += 1
            return {"loss": self.weight.sum()}
        box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        return [
            {
                "img_id": int(img_id),
                "pred_instances": {
                    "bboxes": box if img_id == 1 else box[:0],
                    "scores": self.steps / 100 if img_id == 1 else self.steps[:0],
                },
            }
            for img_id in inputs
        ]


class Slabs(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return {"inputs": index + 1}

    def __len__(self):
        return STEPS_PER_EPOCH


@pytest.fixture
def ann_file(tmp_path):
    content = {
        "info": {"data": "phantom", "protocol": "strict", "split": "val"},
        "images": [IMAGE | {"id": n, "slab_index": n, "z_range_mm": [0, 7.5]} for n in (1, 2)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100,
             "iscrowd": 0, "diameter_mm": 10.0, "kind": "nodule", "nodule_id": "a/0"}
        ],
        "categories": [{"id": 1, "name": "nodule"}],
        "series": ["a"],
        "nodules": [],
    }  # fmt: skip
    path = tmp_path / "val.json"
    path.write_text(json.dumps(content))
    return path


def train(work_dir, ann_file, *, loop, checkpoint, choose="max_f1"):
    loader = {
        "batch_size": 1, "num_workers": 0, "dataset": Slabs(),
        "sampler": {"type": "DefaultSampler", "shuffle": False},
    }  # fmt: skip
    runner = Runner(
        model=CountingModel(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=loop,
        val_cfg={},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        val_evaluator={"type": "SizeBandMetric", "ann_file": str(ann_file), "choose": choose},
        default_hooks={
            "checkpoint": {"type": "CheckpointHook", "max_keep_ckpts": -1, **checkpoint},
            "operating_point": {"type": "OperatingPointHook"},
        },
        default_scope="mmdet",
        log_level="ERROR",
        experiment_name=work_dir.name,
    )
    runner.train()
    return work_dir


def stored(path):
    """Return the stored operating point, after checking that it belongs to the saved weights."""
    content = torch.load(path, weights_only=False)
    point = operating_point_of(content)
    if point is not None:
        assert point.threshold == pytest.approx(float(content["state_dict"]["steps"]) / 100)
        assert point.iteration == content["meta"]["iter"]
    return point


def test_every_epoch_carries_the_threshold_of_its_own_validation(tmp_path, ann_file):
    folder = train(
        tmp_path / "epochs",
        ann_file,
        loop={"by_epoch": True, "max_epochs": 3},
        checkpoint={"interval": 1, "save_best": "lung/AP50", "rule": "greater"},
    )

    thresholds = [stored(folder / f"epoch_{n}.pth").threshold for n in (1, 2, 3)]
    assert thresholds == pytest.approx([0.02, 0.04, 0.06])
    best = stored(folder / "best_lung_AP50_epoch_1.pth")
    assert best.threshold == pytest.approx(0.02)
    assert (best.rule, best.data, best.protocol, best.split) == (
        "max_f1", "phantom", "strict", "val",
    )  # fmt: skip
    assert (best.n_scans, best.n_slabs, best.n_nodules, best.f1) == (1, 2, 1, 1.0)


def test_epochs_without_a_validation_carry_none(tmp_path, ann_file):
    folder = train(
        tmp_path / "every_other",
        ann_file,
        loop={"by_epoch": True, "max_epochs": 5, "val_interval": 2},
        checkpoint={"interval": 1},
    )

    # Epoch 5 is validated because it is the last; epoch 3 must not take the threshold of epoch 2.
    points = [stored(folder / f"epoch_{n}.pth") for n in (1, 2, 3, 4, 5)]
    assert [point is None for point in points] == [True, False, True, False, False]


def test_checkpoints_by_iterations(tmp_path, ann_file):
    folder = train(
        tmp_path / "iterations",
        ann_file,
        loop={"by_epoch": False, "max_iters": 4, "val_interval": 4},
        checkpoint={"interval": 2, "by_epoch": False},
    )

    assert stored(folder / "iter_2.pth") is None
    assert stored(folder / "iter_4.pth").threshold == pytest.approx(0.04)


def test_a_rewritten_checkpoint_still_holds_all_it_is_resumed_from(tmp_path, ann_file):
    folder = train(
        tmp_path / "whole",
        ann_file,
        loop={"by_epoch": True, "max_epochs": 1},
        checkpoint={"interval": 1},
    )

    content = torch.load(folder / "epoch_1.pth", weights_only=False)
    assert {"meta", "state_dict", "optimizer", "message_hub"} <= set(content)
    assert [path.name for path in folder.glob(".*.tmp")] == []


@pytest.mark.parametrize("choose", [None, "sensitivity>=0.9"])
def test_without_a_rule_nothing_is_stored(tmp_path, ann_file, choose):
    folder = train(
        tmp_path / f"rule_{choose is not None}",
        ann_file,
        loop={"by_epoch": True, "max_epochs": 1},
        checkpoint={"interval": 1},
        choose=choose,
    )

    point = stored(folder / "epoch_1.pth")
    assert (point is None) == (choose is None)
    assert point is None or point.rule == choose
