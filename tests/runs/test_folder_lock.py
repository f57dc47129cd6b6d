import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import OutputError, only_run_in


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with (
        only_run_in(tmp_path),
        pytest.raises(LungDetError, match="another run is writing there"),
        only_run_in(tmp_path),
    ):
        pass


def test_the_folder_is_made_and_free_again_after_the_run(tmp_path):
    for _ in range(2):
        with only_run_in(tmp_path / "out"):
            assert (tmp_path / "out").is_dir()


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="out"), only_run_in(tmp_path / "out"):
        pass
