# SPDX-License-Identifier: Apache-2.0
"""What the command ``lungdet`` does, one module for each subcommand: parse, call, print."""
