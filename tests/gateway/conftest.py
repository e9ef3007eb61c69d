"""Gateways for tests, and the vendor behind them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fakes.upstream import Upstream
from tests.gateway.running import Gateway


@pytest.fixture(scope="module")
def shared_vendor() -> Iterator[Upstream]:
    with Upstream() as serving:
        yield serving


@pytest.fixture(scope="module")
def shared_gateway(shared_vendor: Upstream) -> Iterator[Gateway]:
    """One for all tests of a module. They leave profiles and configuration as they are."""
    gateway = Gateway(shared_vendor)
    try:
        yield gateway.start()
    finally:
        gateway.close()


@pytest.fixture
def vendor(shared_vendor: Upstream) -> Upstream:
    """The module's, as if it were new."""
    shared_vendor.forget()
    return shared_vendor


@pytest.fixture
def gateway(shared_gateway: Gateway, vendor: Upstream) -> Gateway:
    """The module's."""
    return shared_gateway


MakeGateway = Callable[..., Gateway]


@pytest.fixture
def make_gateway(vendor: Upstream) -> Iterator[MakeGateway]:
    """Gateways as a test wants them, not started yet; they end with the test. Arguments as `Gateway` takes them."""
    with ExitStack() as ending:

        def make(**wanted: Any) -> Gateway:
            gateway = Gateway(vendor, **wanted)
            ending.callback(gateway.close)
            return gateway

        yield make
