# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run the package, and what to do where it cannot.

``lungdet doctor`` prints it. Nothing of the stack is imported before a check asks for it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from lungdet_mmdet import versions
from lungdet_mmdet.runs.command_line import describe_cores
from lungdet_mmdet.versions import INSTALL_COMPILED, WITHOUT_COMPILED

if TYPE_CHECKING:
    import torch

OK, NOTE, WARN, FAIL = "ok", "note", "warn", "FAIL"


@dataclass(frozen=True)
class Line:
    """One result: level, topic, what was found, and the remedy where there is a problem."""

    level: str
    topic: str
    text: str
    remedy: str = ""


def report(lines: Iterable[Line]) -> int:
    """Print the lines as they come and return the exit code."""
    failed = 0
    for line in lines:
        failed += line.level == FAIL
        print(f"{line.level:<5} {line.topic:<17} {line.text}", flush=True)
        if line.remedy:
            print(f"{'':<24}-> {line.remedy}", flush=True)
    print(f"Not usable: {failed} problem(s) marked {FAIL}." if failed else "Usable.")
    return 1 if failed else 0


SCIENCE_MODULES = {
    "SimpleITK": "pip install SimpleITK",
    "cv2": "pip install opencv-python-headless (it needs no libGL), or install your system's libGL",
    "scipy": "pip install scipy",
    "pycocotools": "pip install pycocotools",
}
MM_MODULES = ("torch", "mmengine", "mmcv.ops", "mmdet.models")
# Optional libraries: what for, and the extra of setup.py that brings them.
EXTRAS = {
    "distributed": ("work on a Dask cluster", "cluster"),
    "pydicom": ("DICOM reports out, DICOM segmentations in; DICOM images need none", "dicom"),
    "highdicom": ("as pydicom", "dicom"),
    "tensorboard": ("training curves in TensorBoard", "viz"),
    "pooch": ("downloading LUNA16", "download"),
}


def describe_platform() -> Line:
    """Return which Python, system and number of cores this is."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    text = f"Python {platform.python_version()}, {system}, {describe_cores()}"
    return Line(OK, "python", text)


def check_versions() -> Iterator[Line]:
    """Compare the installed distributions with what the package runs on."""
    findings = versions.survey()
    for finding in findings:
        found = ", ".join(f"{name} {version}" for name, version in finding.installed.items())
        if finding.problem:
            problem, _, remedy = finding.problem.partition(" Remedy: ")
            yield Line(FAIL, finding.requirement.module, problem, remedy)
        else:
            yield Line(OK, finding.requirement.module, found)
    caution = versions.checkpoint_caution(findings)
    if caution:
        yield Line(WARN, "checkpoints", caution)


def check_imports() -> Iterator[Line]:
    """Import every library that is needed."""
    stack_remedy = "read the error; reinstall the versions named in constraints.txt"
    modules = {**SCIENCE_MODULES, **dict.fromkeys(MM_MODULES, stack_remedy)}
    modules["mmcv.ops"] = (
        f"compiled ops fit one version of torch: {INSTALL_COMPILED}; or mmcv without ops: "
        f"{WITHOUT_COMPILED}"
    )
    for name, remedy in modules.items():
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a broken binary may raise anything, and the rest goes on
            yield Line(FAIL, name, f"cannot be imported: {error}", remedy)
        else:
            yield Line(OK, name, f"imports {getattr(module, '__version__', '')}".rstrip())


def check_extras() -> Iterator[Line]:
    """Look for the optional libraries."""
    for name, (purpose, extra) in EXTRAS.items():
        try:
            yield Line(OK, name, f"{metadata.version(name)}: {purpose}")
        except metadata.PackageNotFoundError:
            remedy = f"pip install 'lungdet-mmdet[{extra}]'"
            yield Line(NOTE, name, f"not installed (optional: {purpose})", remedy)


NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def unused_gpu() -> str | None:
    """Say why torch does not use the NVIDIA GPU of this machine, and the remedy; None if it does.

    None also where no driver is there, or where ``CUDA_VISIBLE_DEVICES`` is empty: then the CPU is
    what is wanted.
    """
    import torch

    if torch.cuda.is_available() or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    if not (shutil.which("nvidia-smi") or NVIDIA_DRIVER.is_file()):
        return None
    if torch.version.cuda is None:
        return (
            "there is an NVIDIA driver, but this torch is built for CPU only; install a CUDA build "
            "of torch: https://pytorch.org/get-started/locally"
        )
    return (
        f"torch is built for CUDA {torch.version.cuda} but finds no usable GPU; check that "
        "'nvidia-smi' lists a GPU, and whether its driver is too old for that CUDA version (then "
        "update it, or install a torch built for an older CUDA)"
    )


def check_devices() -> Iterator[Line]:
    """Name the GPUs, or say why there is none to use."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            name = torch.cuda.get_device_name(index)
            major, minor = torch.cuda.get_device_capability(index)
            text = f"{name}, capability {major}.{minor}, CUDA {torch.version.cuda}"
            yield Line(OK, f"cuda:{index}", text)
        yield Line(OK, "amp", "fp16 mixed precision is available")
        return
    if fault := unused_gpu():
        problem, _, remedy = fault.partition("; ")
        yield Line(WARN, "cuda", problem, remedy)
    elif torch.version.cuda is None:
        yield Line(NOTE, "cuda", "no GPU: training and inference run on the CPU")
    else:
        yield Line(
            NOTE,
            "cuda",
            f"no GPU: training and inference run on the CPU; this torch is built for CUDA "
            f"{torch.version.cuda}, one for CPUs takes a tenth of the space",
        )
    yield Line(NOTE, "amp", "no GPU: --amp falls back to plain precision")


def check_attention() -> Iterator[Line]:
    """Run the deformable attention forward and backward on every kind of device there is."""
    import torch

    import lungdet_mmdet.plugin  # noqa: F401  (so that what a run would use is looked at)
    from lungdet_mmdet.ops import attention_choice, is_stand_in

    kind = "pure PyTorch stand-in" if is_stand_in() else "compiled"
    yield Line(OK, "mmcv ops", kind)
    expected = None
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        topic = f"attention ({device})"
        try:
            output = _attention_output(device)
            if expected is not None and not torch.allclose(output, expected, atol=1e-4):
                raise RuntimeError("the result differs from the one on the CPU")
        except Exception as error:  # whatever the op raises is the finding
            remedy = f"reinstall mmcv for this torch: {INSTALL_COMPILED}"
            yield Line(FAIL, topic, f"does not work: {error}", remedy)
            continue
        expected = output
        text = f"works; {attention_choice.describe_attention(torch.device(device))}"
        fault = attention_choice.is_slow_on(torch.device(device))
        remedy = f"install triton, which CUDA builds of torch bring; or {INSTALL_COMPILED}"
        yield Line(WARN, topic, text, remedy) if fault else Line(OK, topic, text)


def _attention_output(device: str) -> torch.Tensor:
    import torch
    from mmcv.ops import MultiScaleDeformableAttention

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = MultiScaleDeformableAttention(
            embed_dims=32, num_heads=4, num_levels=2, num_points=2, dropout=0.0, batch_first=True
        ).to(device)
    shapes = torch.tensor([[4, 4], [2, 2]], device=device)
    query = torch.linspace(-1, 1, 20 * 32, device=device).view(1, 20, 32).requires_grad_()
    reference = torch.linspace(0, 1, 20, device=device).view(1, 20, 1, 1).expand(1, 20, 2, 2)
    output = attention(
        query,
        reference_points=reference,
        spatial_shapes=shapes,
        level_start_index=torch.tensor([0, 16], device=device),
    )
    output.square().sum().backward()
    if not query.grad.isfinite().all():
        raise RuntimeError("the gradients are not finite")
    return output.detach().cpu()


RESNET50_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"


def check_weights(url: str = RESNET50_URL) -> Iterator[Line]:
    """Look for a weight file in torch's cache, and else ask its server for it."""
    from lungdet_mmdet.engine.run_setup import cached_copy, why_unreachable

    cached, reason = cached_copy(url), why_unreachable(url)
    if cached.is_file():
        yield Line(OK, "weights", f"pretrained ResNet-50 is in the cache: {cached}")
    elif reason is None:
        yield Line(OK, "weights", f"pretrained ResNet-50 can be downloaded from {url}")
    else:
        yield Line(
            WARN,
            "weights",
            f"pretrained ResNet-50 is not in the cache and cannot be reached: {reason}",
            f"only trainings need it: `lungdet train --pretrained PATH` takes a local path ({url}, "
            "fetched elsewhere) or another URL, `--pretrained none` starts without pretrained "
            "weights",
        )


def examine() -> Iterator[Line]:
    """Run every check; those that need the stack only where it can be imported."""
    yield describe_platform()
    yield from check_versions()
    import_lines = list(check_imports())
    yield from import_lines
    # A version out of range may still work: what decides is whether the imports do.
    broken = {line.topic for line in import_lines if line.level == FAIL}
    if "torch" not in broken:
        yield from check_devices()
        if not broken.intersection(MM_MODULES):
            yield from check_weights()
            yield from check_attention()
    yield from check_extras()


def main() -> int:
    """Print the report; 0 where this machine is usable, 1 where something needed does not work."""
    argparse.ArgumentParser(
        prog="lungdet doctor",
        description="Say whether this machine can run lungdet_mmdet, and what to do where it "
        "cannot. Exit code 1 where something that is needed does not work.",
    ).parse_args()
    warnings.simplefilter("ignore")  # what they say stands in the report
    return report(examine())
