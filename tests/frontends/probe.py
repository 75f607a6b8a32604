# SPDX-License-Identifier: Apache-2.0
"""The input on which models are compared, and how close their answers must be."""

import torch

PROBE = torch.arange(4, 40).reshape(2, 18)


def assert_close(found, wanted):
    """Other versions of a library may add up in another order. (Steps of the trainings here
    differ a thousand times more.)"""
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
