"""The images, built where they are not there yet, and containers of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from image.archive import Archive
from image.container import Containers
from image.workshop import Workshop, workshop


@pytest.fixture(scope="session")
def shop() -> Workshop:
    return workshop()


@pytest.fixture(scope="session")
def images(shop: Workshop) -> dict[str, str]:
    return shop.ready()


def opened(shop: Workshop, image: str) -> Iterator[Archive]:
    archive = Archive(shop.archive(image))
    yield archive
    archive.close()


@pytest.fixture(scope="session")
def gateway(shop: Workshop, images: dict[str, str]) -> Iterator[Archive]:
    yield from opened(shop, images["gateway"])


@pytest.fixture(scope="session")
def laptop(shop: Workshop, images: dict[str, str]) -> Iterator[Archive]:
    yield from opened(shop, images["laptop"])


@pytest.fixture
def containers(shop: Workshop, images: dict[str, str]) -> Iterator[Containers]:
    with Containers(shop, images) as made:
        yield made
