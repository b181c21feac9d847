"""The browser that the tests of pages share."""

import pytest
from browser import started


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
