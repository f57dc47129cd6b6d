# SPDX-License-Identifier: Apache-2.0
"""The command ``lungdet doctor``, from a checkout; it also speaks where the package is missing."""

import os
import sys

OLDEST_PYTHON = (3, 10)


def main() -> int:
    if sys.version_info < OLDEST_PYTHON:
        return refuse("python", "too old", "use Python 3.10 or newer")
    try:
        from lungdet_mmdet.doctor import main as examine
        from lungdet_mmdet.runs.command_line import use_cores_calmly
    except ImportError as error:  # not installed, or packaging is missing
        remedy = "run 'pip install -e .[mm]' in the repository"
        return refuse("lungdet_mmdet", error, remedy)
    use_cores_calmly()
    return examine()


def refuse(topic, problem, remedy) -> int:
    """Say why nothing could be checked, in the form of the report."""
    print(f"FAIL  {topic:<17} {problem}\n{'':<24}-> {remedy}")
    print("Not usable: nothing else could be checked.")
    return 1


if __name__ == "__main__":
    # The doctor reports on the versions line by line, so it has to outlive the check on import.
    os.environ["LUNGDET_SKIP_VERSION_CHECK"] = "1"
    sys.exit(main())
