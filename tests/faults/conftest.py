"""A command is not tried on a family of models that cannot do what it asks; that it says so is a test of its own."""

from __future__ import annotations

from typing import Any

import pytest

from faults import harness


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def idle(item: pytest.Item) -> bool:
        given: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
        return "name" in given and "family" in given and not harness.applies(given["name"], given["family"])

    left_out = [item for item in items if idle(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not idle(item)]
