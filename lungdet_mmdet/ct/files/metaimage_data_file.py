"""Which file holds the pixels of a MetaImage header: only one that lies beside the header."""

from __future__ import annotations

from pathlib import Path

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import check_input_file

# As MetaIO compares them: any other spelling is a file name.
_LOCAL_NAMES = ("LOCAL", "Local", "local")


def data_file_beside(path: Path, name: str) -> Path:
    """Return the file with the pixels of a header.

    Parameters
    ----------
    path : the header.
    name : its ElementDataFile; "LOCAL" means the header's own file.

    Raises
    ------
    LungDetError
        If it lies elsewhere, is no regular file, or stands for several.
    """
    if name in _LOCAL_NAMES:
        return path
    if name.startswith("LIST") or "%" in name:
        raise LungDetError(
            f"{path}: ElementDataFile '{name}' stands for a list of slice files; one data file is "
            "needed: convert the scan to a single .mha file first"
        )
    outside = LungDetError(
        f"{path}: ElementDataFile '{name}' lies outside the header's own folder "
        f"{path.parent.resolve()}; for safety only files beside the header are read: put the "
        "data file there and name it without a path"
    )
    if Path(name).name != name or "\0" in name:
        raise outside
    data_path = path.parent / name
    try:
        check_input_file(data_path)
    except LungDetError as error:
        # Missing stays missing: who checks a folder tells that from damage.
        raise type(error)(f"{path}: ElementDataFile '{name}' cannot be used: {error}") from None
    # A link may lead out of the folder only to where the header's own link leads.
    if data_path.resolve().parent not in {path.parent.resolve(), path.resolve().parent}:
        raise outside
    return data_path
