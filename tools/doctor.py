"""Report whether this machine can run lungdet_mmdet, and what to do where it cannot.

Exit code 0 where it is usable, 1 where something that is needed does not work.
"""

import argparse
import os
import sys
import warnings

OLDEST_PYTHON = (3, 10)


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    if sys.version_info < OLDEST_PYTHON:
        return refuse("python", "too old", "use Python 3.10 or newer")
    try:
        from lungdet_mmdet.runs.command_line import use_cores_calmly

        use_cores_calmly()
        from lungdet_mmdet.doctor import examine, report
    except ImportError as error:  # not installed, or packaging is missing
        return refuse("lungdet_mmdet", error, "run 'pip install -e .' in the repository")
    return report(examine())


def refuse(topic, problem, remedy) -> int:
    """Say why nothing could be checked, in the form of the report."""
    print(f"FAIL  {topic:<17} {problem}\n{'':<24}-> {remedy}")
    print("Not usable: nothing else could be checked.")
    return 1


if __name__ == "__main__":
    # The doctor reports on the versions line by line, so it has to outlive the check on import.
    os.environ["LUNGDET_SKIP_VERSION_CHECK"] = "1"
    warnings.simplefilter("ignore")
    sys.exit(main())
