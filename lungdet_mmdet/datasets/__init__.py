# SPDX-License-Identifier: Apache-2.0
"""Registered datasets and transforms.

The plugin imports them. Workers that prepare scans import ``transforms`` alone: mmdet's data sets
would cost each of them seconds and 200 MB.
"""
