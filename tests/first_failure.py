"""A pytest plugin: once a test of a class has failed, the rest are skipped, as a mutant is caught by one of them."""

from __future__ import annotations

from collections.abc import Generator

import pytest

CAUGHT = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    kind = item.getparent(pytest.Class)
    if report.failed and kind is not None:
        kind.stash[CAUGHT] = True
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    kind = item.getparent(pytest.Class)
    if kind is not None and CAUGHT in kind.stash:
        pytest.skip("a test of its class has failed")
