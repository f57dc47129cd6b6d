from pathlib import Path

import pytest

from lungdet_mmdet.engine.run_setup import latest_checkpoint, set_aside, trained_checkpoint
from lungdet_mmdet.errors import LungDetError


@pytest.fixture
def work_dir(tmp_path):
    for name in ("epoch_9.pth", "epoch_10.pth", "best_lung_AP50_epoch_12.pth"):
        (tmp_path / name).touch()
    return tmp_path


def test_the_note_is_followed(work_dir):
    (work_dir / "last_checkpoint").write_text(str(work_dir / "epoch_9.pth"))
    assert latest_checkpoint(work_dir).name == "epoch_9.pth"


def test_a_run_that_begins_anew_cannot_be_taken_for_the_one_before(work_dir, monkeypatch):
    (work_dir / "last_checkpoint").write_text("epoch_10.pth")
    (work_dir / "20260101_000000" / "vis_data").mkdir(parents=True)
    (work_dir / "own.pth").touch()  # a published model, say
    kept = work_dir / "epoch_9.pth"
    (work_dir / "metrics.json").write_text("{}")
    (work_dir / "report.html").touch()
    (work_dir / "plots").mkdir()
    monkeypatch.chdir(work_dir.parent)  # names a file in another way than the folder
    told = set_aside(Path(work_dir.name), keep=str(kept))
    (folder,) = work_dir.glob("before_*")
    assert folder.name in told
    assert sorted(path.name for path in work_dir.iterdir()) == [
        folder.name, "epoch_9.pth", "own.pth"
    ]  # fmt: skip
    assert len(list(folder.iterdir())) == 7
    kept.unlink()
    assert set_aside(work_dir) is None
    assert latest_checkpoint(work_dir) is None


def test_a_copied_folder_goes_on_from_its_own_checkpoint(work_dir, tmp_path_factory):
    original = tmp_path_factory.mktemp("original") / "epoch_9.pth"
    original.touch()
    (work_dir / "last_checkpoint").write_text(str(original))
    assert latest_checkpoint(work_dir) == work_dir / "epoch_9.pth"


@pytest.mark.parametrize("note", ["", "/elsewhere/epoch_3.pth", None])
def test_without_a_usable_note_the_highest_number_counts(work_dir, note):
    if note is not None:
        (work_dir / "last_checkpoint").write_text(note)
    assert latest_checkpoint(work_dir).name == "epoch_10.pth"


def test_an_empty_folder_has_none(tmp_path):
    assert latest_checkpoint(tmp_path) is None


def test_a_training_is_judged_by_its_best_checkpoint(work_dir):
    assert trained_checkpoint(work_dir).name == "best_lung_AP50_epoch_12.pth"
    assert trained_checkpoint(work_dir / "epoch_9.pth") == work_dir / "epoch_9.pth"
    (work_dir / "best_lung_AP50_epoch_12.pth").unlink()
    assert trained_checkpoint(work_dir).name == "epoch_10.pth"


def test_a_training_without_checkpoints_is_told(tmp_path):
    with pytest.raises(LungDetError, match="holds no checkpoint of a training"):
        trained_checkpoint(tmp_path)
