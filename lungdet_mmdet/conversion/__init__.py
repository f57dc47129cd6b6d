"""Turning DICOM folder trees into LUNA16's layout."""
