"""The ReLU of the hybrid zonotope."""

import pytest
import torch

from glsk import ops
from tests.support import CPU_BACKENDS

# box (h -/+ beta), bounds -> box after the ReLU
EXAMPLES = [
    (2.0, 3.0, 1.0, 4.0, 2.0, 3.0),  # active: unchanged
    (-1.0, 1.0, -3.0, 3.0, 0.0, 3.0),  # unstable: all of [0, upper]
    (-2.0, -1.5, -3.0, -1.0, 0.0, 0.0),  # inactive: 0
    (-2.0, 0.0, -2.0, 0.0, 0.0, 0.0),
    (0.0, 1.0, 0.0, 1.0, 0.0, 1.0),  # lower = 0 counts as active
]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_examples(backend: str, dtype: torch.dtype) -> None:
    table = torch.tensor(EXAMPLES, dtype=dtype)
    found = ops.hbox_relu(*table[:, :4].unbind(1), 0.0, backend=backend)
    assert torch.equal(torch.stack(found, dim=1), table[:, 4:])
