from importlib import metadata

import pytest

from lungdet_mmdet import versions
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.versions import check_versions

CONTINUATION = {
    "torch": "2.13.0+cpu",
    "onedl-mmengine": "0.10.12",
    "onedl-mmcv": "2.3.6",
    "onedl-mmdetection": "3.5.1",
    "numpy": "2.2.6",
}
ORIGINALS = {
    "torch": "2.1.2",
    "mmengine": "0.10.7",
    "mmcv": "2.1.0",
    "mmdet": "3.3.0",
    "numpy": "1.26.4",
}


@pytest.fixture
def install(monkeypatch):
    """Pretend that exactly these distributions are installed."""
    monkeypatch.delenv(versions.SKIP_VARIABLE, raising=False)

    def pretend(installed):
        def version(name):
            if name not in installed:
                raise metadata.PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(metadata, "version", version)

    return pretend


def without(installed, *names):
    return {name: version for name, version in installed.items() if name not in names}


@pytest.mark.parametrize(
    "installed",
    [
        CONTINUATION,
        ORIGINALS,
        {**without(ORIGINALS, "mmcv"), "mmcv-lite": "2.1.0"},
        {**CONTINUATION, "torch": "2.6.0a0+ecf3bae40a.nv25.1"},
    ],
    ids=["continuation", "originals", "mmcv-lite", "vendor build"],
)
def test_supported_sets_pass_in_silence(install, recwarn, installed):
    install(installed)
    check_versions()
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "version", "supported"),
    [
        ("torch", "1.13.1", ">=2.0,<3"),
        ("torch", "3.0.0", ">=2.0,<3"),
        ("onedl-mmengine", "0.11.0", ">=0.10.8,<0.11"),
        ("onedl-mmcv", "2.2.9", ">=2.3.0,<2.4"),
        ("onedl-mmdetection", "4.0.0", ">=3.4.0,<3.6"),
        ("numpy", "1.21.0", ">=1.24,<3"),
        ("numpy", "3.0.1", ">=1.24,<3"),
    ],
)
def test_too_old_or_too_new_names_version_range_and_remedy(install, name, version, supported):
    install({**CONTINUATION, name: version})
    with pytest.raises(LungDetError) as error:
        check_versions()
    assert f"{name} {version} is not supported; supported: {supported}" in str(error.value)
    assert f'pip install "{name}{supported}"' in str(error.value)


@pytest.mark.parametrize(
    ("name", "version"), [("mmengine", "0.10.6"), ("mmcv", "2.2.0"), ("mmdet", "3.2.0")]
)
def test_ranges_of_the_originals(install, name, version):
    install({**ORIGINALS, name: version})
    with pytest.raises(LungDetError, match=f"{name} {version} is not supported"):
        check_versions()


def test_missing_library_names_the_default_distribution(install):
    install(without(CONTINUATION, "onedl-mmcv"))
    with pytest.raises(ImportError, match="mmcv is not installed") as error:
        check_versions()
    assert 'pip install "onedl-mmcv>=2.3.0,<2.4"' in str(error.value)


def test_two_distributions_of_one_library(install):
    install({**CONTINUATION, "mmcv-lite": "2.1.0"})
    with pytest.raises(LungDetError, match="onedl-mmcv 2.3.6 and mmcv-lite 2.1.0") as error:
        check_versions()
    assert "pip uninstall -y onedl-mmcv mmcv-lite && pip install" in str(error.value)


@pytest.mark.parametrize("version", [None, "not-a-version"])
def test_damaged_metadata(install, version):
    install({**CONTINUATION, "onedl-mmcv": version})
    with pytest.raises(LungDetError, match=r"onedl-mmcv has no readable version.*force-reinstall"):
        check_versions()


def test_every_problem_is_told_at_once(install):
    install({"torch": "1.0", "numpy": "1.0"})
    with pytest.raises(LungDetError) as error:
        check_versions()
    assert str(error.value).count("\n- ") == 5


def test_the_check_can_be_turned_into_a_warning(install, monkeypatch):
    install({**CONTINUATION, "torch": "3.0.0"})
    monkeypatch.setenv("LUNGDET_SKIP_VERSION_CHECK", "1")
    with pytest.warns(UserWarning, match="torch 3.0.0 is not supported"):
        check_versions()


@pytest.mark.parametrize("torch_version", ["2.6.0", "2.13.0+cpu"])
def test_original_mmengine_with_a_torch_that_refuses_its_checkpoints(install, torch_version):
    install({**ORIGINALS, "torch": torch_version})
    with pytest.warns(UserWarning, match=r"cannot load its own checkpoints.*torch<2\.6"):
        check_versions()


def test_the_doctor_outlives_what_other_commands_are_refused_for(install, monkeypatch):
    install({**CONTINUATION, "torch": "1.0"})
    for words in (["lungdet"], ["/bin/lungdet"], ["-m", "lungdet_mmdet"]):
        monkeypatch.setattr("sys.orig_argv", ["python", *words, "doctor"])
        check_versions()
        monkeypatch.setattr("sys.orig_argv", ["python", *words, "train", "doctor"])
        # A sentence, and exit code 1: the command has nobody who would catch an error.
        with pytest.raises(SystemExit, match=r"torch 1\.0 is not supported"):
            check_versions()


@pytest.mark.parametrize("name", ["opencv-python", "opencv-python-headless"])
def test_opencv_is_known_by_each_of_its_names(install, name):
    install({name: "4.12.0"})
    found = versions.library_versions(("opencv", "scipy"))
    assert found == {"opencv": "4.12.0", "scipy": "absent"}


def test_two_versions_of_one_library_are_both_named(install):
    install({"opencv-python": "4.12.0", "opencv-python-headless": "4.11.0"})
    assert versions.library_versions(("opencv",)) == {"opencv": "4.11.0 and 4.12.0"}
