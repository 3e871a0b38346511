"""Fixtures: forks of staged platforms."""

from __future__ import annotations

import pytest
from tdxmodule.stages import staged, with_td

from seamref.arch.platform import Platform
from seamref.host import vmm


@pytest.fixture
def platform_installed() -> Platform:
    """1.5.05 installed on 2 processors, not initialised."""
    return staged("installed").fork()


@pytest.fixture
def platform_ready() -> Platform:
    """1.5.05 up on 2 processors."""
    return staged("tdmr.init").fork()


@pytest.fixture
def platform_td() -> tuple[Platform, vmm.Td]:
    """A ready platform and a finished TD."""
    platform, td = with_td()
    return platform.fork(), td.copy()
