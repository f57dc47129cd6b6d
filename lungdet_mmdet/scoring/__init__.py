# SPDX-License-Identifier: Apache-2.0
"""Scoring: size bands, operating point, anomaly view, 3-D candidates, FROC, bootstrap."""
