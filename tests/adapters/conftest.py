"""What tests of torch modules share."""

import pytest


@pytest.fixture
def double():
    """Torch's numbers are double, and its random ones the same."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
