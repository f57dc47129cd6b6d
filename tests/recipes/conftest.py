"""A prepared folder of discs, and configs cut down to what two cores do in a second."""

import pytest

from lungdet_mmdet.splits.split_writer import write_splits
from tests.recipes.tiny_training import NATURAL, TINY
from tests.support.slab_folder import write_slab_folder


@pytest.fixture(scope="session")
def slab_folder(tmp_path_factory):
    """Ten series of three slabs, one of which shows a nodule; strict split."""
    folder = write_slab_folder(tmp_path_factory.mktemp("slabs"), n_series=10, size_px=64)
    write_splits(folder, protocol="strict", positive_rate=NATURAL)
    return folder


@pytest.fixture
def read_tiny(repository, slab_folder, tmp_path, monkeypatch):
    """Reads a config of this package with as few layers and queries as it runs with."""

    def read(name, **options):
        from lungdet_mmdet.apis.config_file import read_config

        config = read_config(
            repository / "configs" / name, data=slab_folder, work_dir=tmp_path / "run"
        )
        model = config.model
        model.backbone.init_cfg = None
        for part in ("encoder", "decoder"):
            if part in model:
                model[part].num_layers = 1
        if "num_queries" in model:
            model.num_queries = model.test_cfg.max_per_img = 10
        config.merge_from_dict(options)
        return config

    # read_config names the data folder in the environment.
    monkeypatch.setenv("LUNGDET_DATA", str(slab_folder))
    return read


@pytest.fixture(autouse=True)
def mmdet_scope():
    """Builds find mmdet's classes, as in a run; one thread, since threads of tiny tensors wait."""
    import torch
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_config(repository, slab_folder, tmp_path):
    """Writes a config file that trains in seconds, with further lines at its end."""

    def write(lines=""):
        path = tmp_path / "tiny.py"
        text = TINY.format(repository=repository, data=slab_folder)
        path.write_text(text + lines, encoding="utf-8")
        return path

    return write


@pytest.fixture
def run_tool(repository):
    """Calls the main function of a tool in this process."""
    import runpy

    def run(name, *arguments):
        main = runpy.run_path(str(repository / "tools" / name))["main"]
        return main([str(argument) for argument in arguments])

    return run
