"""Nothing but the downloader and the search for pretrained weights uses the network."""

import os
from pathlib import Path

import pytest

from tests.reliability.tool_runs import REPOSITORY, run_tools

NO_NETWORK = Path(__file__).with_name("no_network")


@pytest.fixture(scope="module")
def results(inputs, tmp_path_factory):
    """What each command did and, after all of them, which hosts were asked for."""
    out = tmp_path_factory.mktemp("offline")
    report = out / "asked_for.txt"
    one_scan = next(inputs.luna16.rglob("*.mhd"))
    config = ("--cfg-options", "train_cfg.max_epochs=1")
    # Its backbone starts from weights that are named by URL.
    pretrained = [REPOSITORY / "configs" / "lung_deform_detr.py", "--data", inputs.slabs,
                  "--work-dir", out / "pretrained"]  # fmt: skip
    calls = {
        "prepare": (
            "data_prep/prepare_luna16.py",
            [inputs.luna16, out / "prepared", "--config", inputs.prep_config, "--workers", 1],
        ),
        "infer": (
            "tools/infer.py",
            [one_scan, "--checkpoint", inputs.model, "--out", out / "found", "--workers", 1],
        ),
        "train": ("tools/train.py", [inputs.train_config, "--work-dir", out / "run", *config]),
        "test": (
            "tools/test.py",
            [inputs.train_config, out / "run" / "epoch_1.pth", "--work-dir", out / "tested",
             "--bootstrap", 0, "--no-report"],
        ),
        "train from weights": ("tools/train.py", pretrained),
        "train from weights, online": ("tools/train.py", pretrained, {"LUNGDET_OFFLINE": "0"}),
    }  # fmt: skip
    done = run_tools(
        list(calls.values()),
        PYTHONPATH=os.pathsep.join([str(NO_NETWORK), str(REPOSITORY)]),
        NETWORK_REPORT=str(report),
        TORCH_HOME=str(out / "torch"),
        LUNGDET_OFFLINE="1",
    )
    asked_for = set(report.read_text().split()) if report.exists() else set()
    return dict(zip(calls, done, strict=True)), asked_for


@pytest.mark.reliability("no network: prepare, train, test, infer with sockets forbidden")
@pytest.mark.parametrize("name", ["prepare", "infer", "train", "test"])
def test_work_is_done_without_a_network(results, name):
    done = results[0][name]
    assert done["code"] == 0, done["error"] or done["out"][-2000:]


@pytest.mark.reliability("no network: prepare, train, test, infer with sockets forbidden")
def test_offline_weights_are_not_asked_for(results):
    done = results[0]["train from weights"]
    assert done["code"] == 1
    assert "LUNGDET_OFFLINE" in done["error"]


@pytest.mark.reliability("no network: prepare, train, test, infer with sockets forbidden")
def test_the_weights_alone_are_asked_for_and_only_online(results):
    done, asked_for = results
    assert "pretrained weights cannot be had" in done["train from weights, online"]["error"]
    assert asked_for == {"download.pytorch.org"}
