# SPDX-License-Identifier: Apache-2.0
"""Running the same function on many scans: progress, failures, lost workers, interruption."""
