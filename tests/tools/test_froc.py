import importlib.util
import json
import sys
from pathlib import Path

import pytest

from lungdet_mmdet.errors import LungDetError

TOOL = Path(__file__).parents[2] / "tools" / "froc.py"

SUBMISSION = """seriesuid,coordX,coordY,coordZ,probability
s1,50,0,0,0.9
s1,0,0,0,0.8
s1,1,0,0,0.7
s2,30,0,0,0.6
"""


@pytest.fixture
def froc():
    spec = importlib.util.spec_from_file_location("froc_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["froc_tool"] = module
    spec.loader.exec_module(module)
    yield module.main
    del sys.modules["froc_tool"]


@pytest.fixture
def tables(tmp_path):
    """Two nodules in s1 (one of them not found), an excluded finding in s2, four scans."""
    header = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    (tmp_path / "a.csv").write_text(header + "s1,0,0,0,6\ns1,90,0,0,6\n")
    (tmp_path / "b.csv").write_text(header + "s2,30,0,0,-1\n")
    (tmp_path / "s.csv").write_text("s1\ns2\ns3\ns4\n")
    (tmp_path / "submission.csv").write_text(SUBMISSION)
    return tmp_path


def arguments(folder, *more):
    return [
        str(folder / "submission.csv"), "--annotations", str(folder / "a.csv"),
        "--excluded", str(folder / "b.csv"), "--seriesuids", str(folder / "s.csv"), *more,
    ]  # fmt: skip


def test_writes_the_figures_as_json(froc, tables, capsys):
    out = tables / "out" / "froc.json"

    assert froc(arguments(tables, "--json", str(out), "--bootstrap", "50")) == 0

    figures = json.loads(out.read_text())
    # The false positive comes first: (1/4 per scan, 0), then the hit: (1/4, 1/2).
    assert figures["sensitivities"] == [0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert figures["cpm"] == pytest.approx(3 / 7)
    assert len(figures["cpm_ci95"]) == 2
    names = ("n_scans", "n_nodules", "true_positives", "false_positives", "ignored", "duplicates",
             "false_negatives")  # fmt: skip
    assert [figures[name] for name in names] == [4, 2, 1, 1, 1, 1, 1]
    assert "CPM" in capsys.readouterr().out


def test_warnings_are_printed_and_kept(froc, tables, capsys):
    (tables / "submission.csv").write_text(SUBMISSION + "other,0,0,0,0.5\n")

    assert froc(arguments(tables, "--json", str(tables / "o.json"))) == 0

    assert "not evaluated, left out: 1" in capsys.readouterr().err
    assert any(
        "left out: 1" in text for text in json.loads((tables / "o.json").read_text())["warnings"]
    )


def test_no_bootstrap_gives_no_interval(froc, tables):
    froc(arguments(tables, "--json", str(tables / "o.json"), "--bootstrap", "0"))

    assert json.loads((tables / "o.json").read_text())["cpm_ci95"] is None


def test_draws_the_curve(froc, tables):
    assert froc(arguments(tables, "--plot", str(tables / "froc.png"))) == 0

    assert (tables / "froc.png").read_bytes().startswith(b"\x89PNG")


def test_all_found_is_no_certainty(froc, tables, capsys):
    (tables / "a.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
        + "".join(f"s{n},0,0,0,6\n" for n in range(5))
    )
    (tables / "s.csv").write_text("".join(f"s{n}\n" for n in range(5)))
    (tables / "submission.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,probability\n"
        + "".join(f"s{n},0,0,0,1\n" for n in range(5))
    )
    (tables / "b.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n")

    froc(arguments(tables, "--json", str(tables / "o.json"), "--bootstrap", "20"))

    # Five of five: 0.025 ** (1 / 5) = 0.478.
    assert capsys.readouterr().out.count("0.478 - 1.000 *") == 8
    figures = json.loads((tables / "o.json").read_text())
    assert figures["cpm_ci95"] == pytest.approx([0.025 ** (1 / 5), 1.0])
    assert figures["cpm_ci95_is_exact"]


def test_windows_files_give_the_same_figures(froc, tables):
    froc(arguments(tables, "--json", str(tables / "plain.json")))
    for path in tables.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    froc(arguments(tables, "--json", str(tables / "windows.json")))

    assert (tables / "windows.json").read_text() == (tables / "plain.json").read_text()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("submission.csv", SUBMISSION + "s1,0,0,0,nan\n", "line 6"),
        ("submission.csv", "seriesuid,coordX,coordY,coordZ\ns1,0,0,0\n", "probability"),
        ("submission.csv", SUBMISSION.replace("s1", "x1").replace("s2", "x2"), "none of its 4"),
        ("a.csv", "seriesuid,coordX,coordY,coordZ,diameter_mm\nx,0,0,0,6\n", "no nodule"),
    ],
)
def test_a_broken_table_ends_with_one_clear_line(froc, tables, name, text, message):
    (tables / name).write_text(text)

    with pytest.raises(LungDetError, match=message) as caught:
        froc(arguments(tables, "--json", str(tables / "o.json")))

    assert name in str(caught.value)
    assert not (tables / "o.json").exists()


def test_the_ceiling_needs_no_submission(froc, tables, capsys):
    out = tables / "ceiling.json"
    tables_alone = ["--annotations", str(tables / "a.csv"), "--seriesuids", str(tables / "s.csv")]

    assert froc(["--ceiling", *tables_alone, "--stride-mm", "3.75", "--json", str(out)]) == 0

    figures = json.loads(out.read_text())
    # Slabs every 3.75 mm: a mid-plane within 1.875 mm, less than the radius of 3 mm.
    assert (figures["ceiling_midplane"], figures["ceiling_depth"]) == (1.0, 1.0)
    assert figures["by_band"]["small"]["n_nodules"] == figures["n_nodules"] == 2
    assert (figures["stride_mm"], figures["n_scans"]) == (3.75, 4)
    assert "mid-plane" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--ceiling", "submission.csv"], ["submission.csv"]])
def test_a_submission_or_the_ceiling(froc, tables, more, capsys):
    with pytest.raises(SystemExit) as stop:
        froc([*more, "--annotations", str(tables / "a.csv"), "--seriesuids", str(tables / "s.csv")])
    assert stop.value.code == 2


def test_a_stride_that_leaves_no_slabs_is_refused(froc, tables):
    arguments = ["--annotations", str(tables / "a.csv"), "--seriesuids", str(tables / "s.csv")]
    with pytest.raises(LungDetError, match=r"stride 0\.0 mm: .* stride > 0"):
        froc(["--ceiling", *arguments, "--stride-mm", "0"])
