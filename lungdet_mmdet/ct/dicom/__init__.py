# SPDX-License-Identifier: Apache-2.0
"""A DICOM series: found below a folder, checked, and brought to a regular grid."""
