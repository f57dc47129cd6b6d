import json
import runpy
import subprocess
import sys

import cv2
import pytest
import torch

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.split_writer import write_splits
from tests.support.rehearsal import REHEARSAL_STEPS, write_rehearsal_folder
from tests.support.slab_folder import write_slab_folder


@pytest.fixture
def visualize(repository):
    """Calls the tool in this process; returns its exit code."""
    main = runpy.run_path(str(repository / "tools" / "visualize.py"))["main"]

    def call(*arguments):
        return main([str(argument) for argument in arguments])

    return call


@pytest.fixture
def rehearsal(tmp_path):
    """A folder of two scans, and a config of coarse steps."""
    folder = write_rehearsal_folder(tmp_path / "luna16", 2)
    config = tmp_path / "config.py"
    config.write_text(f"prep_pipeline = {REHEARSAL_STEPS!r}\n")
    return folder, config


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Discs on noise; one slab in three of each scan shows one."""
    folder = write_slab_folder(tmp_path_factory.mktemp("slabs"), n_series=10)
    write_splits(folder, protocol="strict", positive_rate={"test": "natural", "val": "natural"})
    return folder


@pytest.fixture
def predicted(prepared, tmp_path):
    """Detections of the test split: every first nodule box is found, the others are not."""
    coco = json.loads((prepared / "annotations" / "test.json").read_text())
    rows = []
    for image in coco["images"]:
        boxes = [a["bbox"] for a in coco["annotations"] if a["image_id"] == image["id"]]
        found = [[x, y, x + w, y + h] for x, y, w, h in boxes[:1]]
        slab = {"seriesuid": image["seriesuid"], "slab_index": image["slab_index"]}
        scores = [0.9] * len(found)
        rows.append({"img_id": image["id"], **slab, "bboxes": found, "scores": scores})
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(rows))
    return path


def saved(content, path):
    torch.save(content, path)
    return path


def test_pipeline_draws_the_scan_with_the_table_beside_it(visualize, rehearsal, tmp_path, capsys):
    folder, config = rehearsal
    scan = next(folder.glob("subset1/*.mhd"))
    out = tmp_path / "fig1.png"

    assert visualize("pipeline", scan, "--config", config, "--out", out) == 0
    assert f"1 nodule of {scan.stem} in {folder / 'annotations.csv'}" in capsys.readouterr().out
    assert cv2.imread(str(out)) is not None


def test_pipeline_draws_a_scan_without_annotations(visualize, rehearsal, tmp_path, capsys):
    folder, config = rehearsal
    (folder / "annotations.csv").unlink()
    out = tmp_path / "fig1.png"

    assert (
        visualize("pipeline", next(folder.glob("*/*.mhd")), "--config", config, "--out", out) == 0
    )
    assert "no table of nodules given" in capsys.readouterr().out
    assert cv2.imread(str(out)) is not None


@pytest.mark.parametrize("number", [0, 2])
def test_a_nodule_that_the_scan_does_not_have_is_refused(visualize, rehearsal, tmp_path, number):
    folder, config = rehearsal
    scan = next(folder.glob("subset0/*.mhd"))

    with pytest.raises(LungDetError, match=f"--nodule {number}: the scan has 1 annotated"):
        visualize(
            "pipeline", scan, "--config", config, "--nodule", number, "--out", tmp_path / "a.png"
        )


def test_only_png_is_written(visualize, tmp_path):
    with pytest.raises(LungDetError, match="fig.pdf: figures are written as PNG"):
        visualize("pipeline", tmp_path / "scan.mhd", "--out", tmp_path / "fig.pdf")


def test_predictions_of_an_earlier_test_are_drawn(
    visualize, prepared, predicted, repository, tmp_path
):
    config = repository / "configs" / "lung_deform_detr_phantom.py"
    model = saved({"threshold": 0.5}, tmp_path / "model.pth")
    out = tmp_path / "fig3.png"
    options = ["--data", prepared, "--predictions", predicted, "--out", out]

    assert visualize("predictions", config, model, *options, "--count", 2) == 0
    one_row = cv2.imread(str(out)).shape
    assert visualize("predictions", config, model, *options, "--threshold", "0.95") == 0
    assert cv2.imread(str(out)) is not None
    assert one_row[1] == cv2.imread(str(out)).shape[1]


def test_without_any_threshold_there_is_no_hit_or_miss(
    visualize, prepared, predicted, repository, tmp_path
):
    config = repository / "configs" / "lung_deform_detr_phantom.py"
    model = saved({"state_dict": {}}, tmp_path / "model.pth")
    options = ["--data", prepared, "--predictions", predicted, "--out", tmp_path / "fig3.png"]

    with pytest.raises(LungDetError, match="no operating point in it.*give --threshold"):
        visualize("predictions", config, model, *options)
    with pytest.raises(LungDetError, match="--count 0"):
        visualize("predictions", config, model, *options, "--count", 0)


@pytest.mark.realdata
def test_the_paper_pipeline_draws_a_real_scan(visualize, luna16_sample, tmp_path, capsys):
    scan = next(luna16_sample.glob("subset9/*.mhd"))

    assert visualize("pipeline", scan, "--out", tmp_path / "fig1.png") == 0
    assert "3 nodules of" in capsys.readouterr().out


def test_what_mmdet_says_of_itself_is_kept_away():
    line = [sys.executable, "-c", "import lungdet_mmdet.apis.figures"]
    assert subprocess.run(line, check=True, capture_output=True, text=True).stdout == ""
