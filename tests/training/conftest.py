"""What tests of training share."""

import pytest

from tests.support.digits import load_digits


@pytest.fixture(scope="session")
def digits():
    return load_digits()
