# SPDX-License-Identifier: Apache-2.0
"""LUNA16 on disk: fetched, verified, read as a folder; DICOM trees brought to its layout."""
