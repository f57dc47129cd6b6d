# SPDX-License-Identifier: Apache-2.0
"""What the tools call: training, testing, inference, publishing, exporting."""
