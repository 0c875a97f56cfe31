"""What most tests here take."""

import pytest
from evaluation_models import Counter, make_scorer


@pytest.fixture(scope="session")
def scorer():
    """Of a model with attention and an end-of-text token."""
    return make_scorer("attention")


@pytest.fixture
def counter():
    return Counter()
