# SPDX-License-Identifier: Apache-2.0
"""The command ``lungdet``: ``lungdet SUBCOMMAND ...``, also as ``python -m lungdet_mmdet``."""

from __future__ import annotations

import difflib
import pkgutil
import sys

import lungdet_mmdet
from lungdet_mmdet.runs.command_line import run_and_exit

# Subcommand: the function that it is, and what it does.
COMMANDS = {
    "doctor": ("doctor:main", "say what works on this machine, what does not, and what to do"),
    "infer": ("commands.models:infer", "find nodules in CT scans"),
    "corrections": ("commands.scoring:corrections", "join what readers said on the pages of scans"),
    "phantom": ("commands.data:phantom", "make up scans with known nodules"),
    "download": ("commands.data:download", "fetch LUNA16, or check a copy of it"),
    "sample-scans": ("commands.data:sample_scans", "fetch five real chest CTs to try things on"),
    "convert": ("commands.data:convert", "bring DICOM series to LUNA16's layout"),
    "lidc-labels": ("commands.data:lidc_labels", "nodule masks from outlines of LIDC's readers"),
    "insert": ("commands.data:insert", "set real nodules into real lungs of other patients"),
    "prepare": ("commands.preparing:prepare", "scans into slabs, boxes, and a report"),
    "split": ("commands.preparing:split", "divide prepared scans into train, val and test"),
    "browse": ("commands.pictures:browse", "pictures of the slabs as the detector is shown them"),
    "train": ("commands.training:train", "train a detector"),
    "test": ("commands.training:run_test", "test a detector on slabs and scans"),
    "cross-validate": ("commands.scoring:cross_validate", "LUNA16's ten folds, pooled"),
    "froc": ("commands.scoring:froc", "score a submission by LUNA16's rules"),
    "compare": ("commands.scoring:compare", "one table over tested runs"),
    "visualize": ("commands.pictures:visualize", "figures of preparation and of predictions"),
    "publish": ("commands.models:publish", "a model file that cannot run code"),
    "export": ("commands.models:export", "the network as ONNX or OpenVINO"),
    "label-study": ("commands.pictures:label_study", "sphere labels against readers' outlines"),
    "stock": ("commands.training:stock", "run one of mmdet's own tools"),
    "reproduce": ("commands.recipes:reproduce", "the whole way from LUNA16 to the paper's table"),
    "demo": ("commands.recipes:demo", "the whole job on phantoms"),
    "ablation": ("commands.recipes:ablation", "the paper's comparisons on phantoms"),
    "make-model": ("commands.models:make_model", "train the model in the box anew"),
}


def usage() -> str:
    """Return what ``lungdet --help`` prints."""
    rows = [f"  {name:15} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lungdet COMMAND ...    (lungdet COMMAND --help says more)",
            "",
            "Lung nodules in chest CT. Research software, not for clinical use.",
            "",
            *rows,
        ]
    )


def dispatch() -> int:
    """Run the subcommand that ``sys.argv`` names; return its exit code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"lungdet_mmdet {lungdet_mmdet.__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.0)[0]
        print(f"lungdet: no command {name!r}, the nearest is {near!r}", file=sys.stderr)
        return 2
    sys.argv = [f"lungdet {name}", *arguments]
    return pkgutil.resolve_name(f"lungdet_mmdet.{COMMANDS[name][0]}")()


def main() -> None:
    """Run the command and leave with its exit code."""
    run_and_exit(dispatch)


if __name__ == "__main__":
    main()
