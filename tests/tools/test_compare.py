import json
import runpy
from pathlib import Path

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.run_files import read_run, sorted_runs


@pytest.fixture
def compare(repository):
    return runpy.run_path(str(repository / "tools" / "compare.py"))["main"]


def write_run(folder, *, split="test", **fields):
    content = {"data": "phantom", "protocol": "strict", "split": split, "metrics": {}, **fields}
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(content))
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    """An old file without intervals, a new one with them, and one without a small nodule."""
    return [
        write_run(tmp_path / "old", metrics={"AP50": 0.5, "CPM": 0.25}),
        write_run(
            tmp_path / "new",
            metrics={"AP50": 0.75, "AP50_small": None, "CPM": 0.125},
            ci95={"AP50": [0.625, 0.875], "AP50_small": None, "CPM": [None, None]},
            parameters=6_400_000,
            seconds_per_slab=0.0425,
        ),
        write_run(tmp_path / "undefined", metrics={"AP50": None, "CPM": 0.5}),
    ]


def test_runs_come_best_first_with_intervals_size_and_speed(compare, runs, tmp_path, capsys):
    assert compare([*runs, "--metrics", "AP50", "AP50_small", "--out", str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out" / "comparison.md").read_text().splitlines()
    assert lines[0] == "phantom data, strict protocol, test split"
    assert lines[2:] == [
        "| run | AP50 | AP50_small | parameters | ms per slab |",
        "| --- | --- | --- | --- | --- |",
        "| new | 0.750 (0.625 - 0.875) | - | 6.4 M | 42.5 |",
        "| old | 0.500 | - | - | - |",
        "| undefined | - | - | - | - |",
    ]
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    output = capsys.readouterr()
    assert output.out.index("new") < output.out.index("old") < output.out.index("undefined")
    assert output.err == ""


def test_another_figure_sorts_otherwise(runs):
    names = [run.name for run in sorted_runs([read_run(path) for path in runs], "CPM")]
    assert names == ["undefined", "old", "new"]


def test_runs_on_other_slabs_are_not_compared_silently(compare, runs, tmp_path, capsys):
    other = write_run(tmp_path / "val", split="val", metrics={"AP50": 1.0})
    compare([*runs, other])
    error = capsys.readouterr().err
    assert "not tested on the same slabs" in error
    assert "phantom data, strict protocol, val split: val" in error


def test_runs_on_other_scans_of_the_same_kind_are_told_apart(compare, tmp_path, capsys):
    counts = ({"n_scans": 10, "froc_n_nodules": 12}, {"n_scans": 9, "froc_n_nodules": 12})
    folds = [
        write_run(tmp_path / f"fold_{k}", metrics={"AP50": 0.5, **more})
        for k, more in enumerate(counts)
    ]
    compare(folds)
    error = capsys.readouterr().err
    assert "not tested on the same slabs" in error
    assert "10 scans, 12 nodules: fold_0; " in error
    compare([folds[0], folds[0]])
    assert capsys.readouterr().err == ""


def test_bad_input_is_named(compare, runs, tmp_path):
    with pytest.raises(LungDetError, match=r"none/metrics\.json|no metrics here"):
        read_run(tmp_path / "none")
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(LungDetError, match=r"bad\.json: not the metrics of a tested run"):
        read_run(tmp_path / "bad.json")
    with pytest.raises(LungDetError, match="no run has the figure 'F7'; they have AP50"):
        compare([*runs, "--sort", "F7"])


def write_log(folder, *rows):
    log = folder / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"lung/AR50": 0.9, "st')
    return folder.parent


def test_recall_by_epoch_comes_from_the_logs_of_resumed_runs_too(compare, tmp_path, capsys):
    loss = {"loss": 3.0, "epoch": 1, "step": 7}
    detr = write_log(
        tmp_path / "detr" / "20260101_000000", loss, {"lung/AR50": 0.1, "step": 1},
        {"lung/AR50": 0.2, "step": 2},
    )  # fmt: skip
    write_log(detr / "20260101_010000", {"lung/AR50": 0.25, "step": 2})
    deformable = write_log(
        tmp_path / "deformable" / "20260101_000000", {"lung/AR50": 0.5, "step": 1}
    )
    assert compare([str(deformable), str(detr), "--by-epoch"]) == 0
    cells = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert [[cell.strip() for cell in row] for row in cells] == [
        ["1", "50.0 %", "10.0 %"],
        ["2", "-", "25.0 %"],
    ]
    out = tmp_path / "out"
    assert compare([str(deformable), str(detr), "--by-epoch", "--out", str(out)]) == 0
    assert "| 2 | - | 25.0 % |" in (out / "comparison.md").read_text(encoding="utf-8")
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    again = write_log(
        tmp_path / "second" / "detr" / "20260101_000000", {"lung/AR50": 0.75, "step": 1}
    )
    assert compare([str(detr), str(again), "--by-epoch", "--out", str(out)]) == 0
    assert "| 1 | 10.0 % | 75.0 % |" in (out / "comparison.md").read_text(encoding="utf-8")
    with pytest.raises(LungDetError, match="figure 'F1' in 2 logs .*they have AR50"):
        compare([str(detr), "--by-epoch", "F1"])


def test_runs_on_other_labels_are_told_apart(compare, tmp_path, capsys):
    runs = [write_run(tmp_path / kind, metrics={"AP50": 0.5}) for kind in ("mask", "sphere")]
    for run in runs:
        path = Path(run) / "metrics.json"
        content = json.loads(path.read_text()) | {"labels": Path(run).name}
        path.write_text(json.dumps(content))
    compare(runs)
    assert "labels mask: mask" in capsys.readouterr().err
