import errno

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.command_line import run_and_exit


def ended(main):
    with pytest.raises(SystemExit) as caught:
        run_and_exit(main)
    return caught.value.code


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_is_that_of_main(code):
    assert ended(lambda: code) == code


def test_an_error_with_a_remedy_is_one_sentence():
    assert ended(raising(LungDetError("a.mha: bad; mend it"))) == "error: a.mha: bad; mend it"


def test_a_full_disk_is_one_sentence():
    told = ended(raising(OSError(errno.ENOSPC, "No space left on device", "run/log")))
    assert told == (
        "error: run/log: No space left on device; free some space and run the same command again"
    )


def test_other_errors_of_the_system_keep_their_traceback():
    with pytest.raises(FileNotFoundError):
        run_and_exit(raising(FileNotFoundError(errno.ENOENT, "No such file", "x")))


def test_ctrl_c_has_its_exit_code(capsys):
    assert ended(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"
