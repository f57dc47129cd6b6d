# SPDX-License-Identifier: Apache-2.0
"""Running the prep pipeline over a cohort and writing the prepared dataset."""
