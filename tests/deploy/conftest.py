"""The test cloud for all tests of the deployment scripts: one for the session, emptied for every test module."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.client import Cloud, Unavailable


@pytest.fixture(scope="session")
def _one_cloud() -> Iterator[Cloud]:
    with tempfile.TemporaryDirectory(prefix="cloud-") as folder:
        try:
            with Cloud.started(Path(folder)) as cloud:
                yield cloud
        except Unavailable as error:
            pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def cloud(_one_cloud: Cloud) -> Cloud:
    """Between scenarios of a module: `cloud.reset()`."""
    _one_cloud.reset()
    return _one_cloud
