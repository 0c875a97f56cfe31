"""A disk that is full."""

import contextlib
import resource

import pytest


@pytest.fixture
def full_disk():
    """Opens a context in which no file may have more bytes than are given."""

    @contextlib.contextmanager
    def full(largest: int):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return full
