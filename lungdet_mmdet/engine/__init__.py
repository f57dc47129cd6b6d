# SPDX-License-Identifier: Apache-2.0
"""What runs a training: registered hooks, precision and processes, where it starts from."""
