# SPDX-License-Identifier: Apache-2.0
"""One scan file: headers checked before any pixel is read, and MetaImage written."""
