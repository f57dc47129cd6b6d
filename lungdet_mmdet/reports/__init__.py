# SPDX-License-Identifier: Apache-2.0
"""Pictures and pages: overlays of boxes on slabs, plots, reports."""
