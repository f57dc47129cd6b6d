import json
import logging
from collections.abc import Iterator

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope

import lungdet_mmdet.plugin  # noqa: F401
from lungdet_mmdet.datasets.luna16_slabs import LUNA16SlabDataset, log_split_summary
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.coco_json import read_coco


def dataset(folder, **options) -> LUNA16SlabDataset:
    return LUNA16SlabDataset(
        data_root=str(folder),
        ann_file="annotations/train.json",
        data_prefix={"img": "slabs/"},
        pipeline=[],
        serialize_data=False,  # saves a pass of the garbage collector
        **options,
    )


@pytest.fixture
def data_config(repository, slab_folder, monkeypatch) -> Iterator[Config]:
    monkeypatch.setenv("LUNGDET_DATA", str(slab_folder))
    config = Config.fromfile(repository / "configs" / "_base_" / "luna16_slabs.py")
    assert config.data_root == str(slab_folder)
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield config


def test_healthy_slabs_are_kept(slab_folder):
    slabs = dataset(slab_folder)
    assert len(slabs) == 4
    assert [len(slabs.get_data_info(i)["instances"]) for i in range(4)] == [1, 1, 0, 0]


@pytest.mark.parametrize("filter_cfg", [None, {"filter_empty_gt": False}])
def test_filters_that_keep_healthy_slabs_are_accepted(slab_folder, filter_cfg):
    assert len(dataset(slab_folder, filter_cfg=filter_cfg)) == 4


def test_dropping_healthy_slabs_is_refused(slab_folder):
    with pytest.raises(LungDetError, match="would drop every healthy slab"):
        dataset(slab_folder, filter_cfg={"filter_empty_gt": True})


def test_missing_data_names_the_commands_that_make_it(tmp_path):
    with pytest.raises(LungDetError) as caught:
        dataset(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "annotations" / "train.json"))
    assert "lungdet prepare" in message
    assert "lungdet phantom" in message


def test_nodules_are_pasted_from_the_split_that_is_trained_on(slab_folder):
    own = slab_folder / "fold_3" / "annotations" / "train.json"
    own.parent.mkdir(parents=True)
    coco = json.loads((slab_folder / "annotations" / "train.json").read_text())
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] == 1]
    own.write_text(json.dumps(coco))
    with DefaultScope.overwrite_default_scope("mmdet"):
        slabs = LUNA16SlabDataset(
            data_root=str(slab_folder), ann_file=str(own), data_prefix={"img": "slabs/"},
            pipeline=[{"type": "PasteNodules"}],
        )  # fmt: skip
    (step,) = slabs.pipeline.transforms
    assert step.source == (own, slab_folder / "slabs")


def test_plain_coco_files_are_refused(slab_folder):
    path = slab_folder / "annotations" / "train.json"
    coco = json.loads(path.read_text())
    del coco["images"][2]["z_range_mm"]
    path.write_text(json.dumps(coco))
    with pytest.raises(LungDetError, match=r"image 1.3/000.png has no z_range_mm; make the splits"):
        dataset(slab_folder)


def test_the_positive_rate_is_drawn_the_same_way_every_time(slab_folder):
    # One positive and, at a rate of a half, one of two healthy slabs; the grazed one may be there.
    draws = [
        [info["img_id"] for info in map(slabs.get_data_info, range(len(slabs)))]
        for slabs in (
            dataset(slab_folder, positive_rate=0.5, positive_rate_seed=seed) for seed in (0, 0)
        )
    ]
    assert draws[0] == draws[1]
    assert 1 in draws[0]
    assert len({3, 4} & set(draws[0])) == 1
    drawn = set()
    for seed in range(8):
        slabs = dataset(slab_folder, positive_rate=0.5, positive_rate_seed=seed)
        drawn |= {slabs.get_data_info(i)["img_id"] for i in range(len(slabs))}
    assert {3, 4} <= drawn


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_slab_carries_its_place_in_the_patient_to_the_model(data_config, part):
    slabs = DATASETS.build(data_config[f"{part}_dataloader"].dataset)
    meta = slabs[1]["data_samples"].metainfo
    assert meta["seriesuid"] == "1.2"
    assert meta["slab_index"] == 1
    assert meta["z_range_mm"] == [7.5, 15.0]
    assert meta["spacing"] == [0.7, 0.8, 7.5]
    assert meta["origin"] == [1.0, 2.0, 11.25]
    assert meta["direction"] == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert meta["ori_shape"] == meta["img_shape"] == (40, 60)


def test_test_slabs_are_the_pixels_on_disk(data_config):
    slabs = DATASETS.build(data_config.test_dataloader.dataset)
    assert slabs[0]["data_samples"].metainfo["scale_factor"] == (1.0, 1.0)
    image = slabs[2]["inputs"]
    assert tuple(image.shape) == (3, 40, 60)
    assert image.unique().tolist() == [150]


def test_training_slabs_carry_boxes_and_ignore_regions(data_config):
    np.random.seed(0)
    slabs = DATASETS.build(data_config.train_dataloader.dataset)
    positive, grazed, healthy, _ = (slabs[i]["data_samples"] for i in range(4))
    assert positive.gt_instances.labels.tolist() == [0]
    box = positive.gt_instances.bboxes.tensor[0]
    assert (box[2:] - box[:2]).tolist() == pytest.approx([10.0, 8.75], abs=1e-4)
    assert len(positive.ignored_instances) == 0
    assert len(grazed.gt_instances) == 0
    assert len(grazed.ignored_instances) == 1
    assert len(healthy.gt_instances) == len(healthy.ignored_instances) == 0
    assert healthy.gt_instances.bboxes.tensor.shape == (0, 4)


def test_the_split_is_counted_at_start(slab_folder, caplog):
    logger = logging.getLogger("split-summary")
    with caplog.at_level(logging.INFO, logger=logger.name):
        log_split_summary(
            "train.json", read_coco(slab_folder / "annotations/train.json"), logger=logger
        )
    text = caplog.text
    assert "phantom data, strict protocol" in text
    rows = {
        cells[0].strip(): cells[1].strip()
        for line in text.splitlines()
        if len(cells := line.strip(" │").split("│")) == 2
    }
    assert rows["slabs"] == "4"
    assert rows["with a nodule"] == "1"
    assert rows["healthy"] == "2"
    # One positive among three slabs that are not ignored.
    assert rows["positive rate"] == "33.3%"
    assert rows["series"] == "2"
    assert rows["without a nodule"] == "1"


def test_a_split_without_positives_is_warned_of(slab_folder, caplog):
    path = slab_folder / "annotations" / "train.json"
    coco = json.loads(path.read_text())
    coco["annotations"] = []
    log_split_summary(path, coco, logger=logging.getLogger("split-summary"))
    assert "no slab with a nodule" in caplog.text


@pytest.mark.parametrize("key", ["file_name", "depth_file_name"])
def test_an_image_outside_its_series_folder_is_refused(slab_folder, key):
    path = slab_folder / "annotations" / "train.json"
    coco = json.loads(path.read_text())
    coco["images"][0][key] = "1.2/../../secret.png"
    path.write_text(json.dumps(coco))
    with pytest.raises(LungDetError, match=r"secret\.png' of series 1\.2 is not in the series'"):
        read_coco(path)
