# SPDX-License-Identifier: Apache-2.0
"""Semi-real cohorts: real nodules of some patients set into real lungs of others."""
