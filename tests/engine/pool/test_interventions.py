"""Commands whose every run is changed: the changes go to workers as data, and give the same bits there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from engine.pool.test_pool import PAIRS
from interp.sites import Site
from interp.spec import Intervention

pytestmark = pytest.mark.usefixtures("small_shards")


def changes(width: int) -> list[Intervention]:
    return [
        Intervention(Site("z", 0), head=1, position=2, mode="zero"),
        Intervention(Site("resid_post", 0), mode="add", value=np.linspace(-2, 2, width)),
    ]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("command", ["patch", "ablate", "attribution"])
def test_the_same_bits(family: str, command: str, lend: Any, everywhere: Any) -> None:
    own = changes(lend(family).geometry.d_model)
    asked: dict[str, Any] = {"heads": "1.0"} if command == "ablate" else {"layer": 1, "site": "z"}
    if command == "attribution":
        asked["method"] = "attribution"
    name = "per_prompt" if command == "ablate" else "estimate" if command == "attribution" else "per_pair"
    call = interp.ablate if command == "ablate" else interp.patch
    plain, *found = everywhere(lambda: call(pairs=PAIRS[:3], interventions=own, **asked))
    values = [getattr(one, name) for one in found]
    for other in values[1:]:
        assert np.array_equal(values[0], other)
    assert np.abs(values[0] - getattr(plain, name)).max() < 1e-4
    assert found[2].provenance.path.endswith(" on 2 processes")
    assert any("every run of the model had 2 interventions on it" in note for note in found[2].notes)
    without = getattr(call(pairs=PAIRS[:3], **asked), name)
    assert np.abs(values[0] - without).max() > 1e-3
