"""What saliency refuses and warns of: of a prompt by a model, and of a text by a classifier."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.ids import types_of
from interp.methods._shared.pairs import aligned

if TYPE_CHECKING:
    from interp.engine.model.tokens import Encoded
    from interp.methods._shared.saliency_result import SaliencyResult

# Methods whose parts do not sum to the difference by what they are, and those that draw samples.
UNSUMMED = ("occlusion", "lime")
SAMPLED = ("lime", "kernel-shap")
WARNED = 0.05  # of the difference: what the parts may miss before a warning


def same_length(encoded: Encoded, other: Encoded) -> None:
    """Refuse a counterfactual whose tokens do not line up with the prompt's, or are the same.

    Raises
    ------
    InputError
        The two are of different lengths, shown where they part, or equal.
    """
    if len(encoded.ids) != len(other.ids):
        raise InputError(
            f"the prompt has {len(encoded.ids)} tokens and the counterfactual {len(other.ids)}; they must line up: "
            f"{aligned(encoded, other)}"
        )
    if types_of(encoded.ids) != types_of(other.ids):
        raise InputError(
            "the prompt and the counterfactual part their two sentences at different tokens; they must line up: give "
            "each sentence one of as many tokens"
        )
    if encoded.ids == other.ids:
        raise InputError("the counterfactual is the prompt itself; change the words whose part is asked for")


def require_captum(method: str = "ig") -> None:
    """Refuse where captum, or what it fits samples with, is missing.

    Raises
    ------
    InputError
        With the command that installs it.
    """
    if importlib.util.find_spec("captum") is None:
        raise InputError("this saliency needs captum: pip install 'interp[saliency]'; --method rollout does not")
    if method in SAMPLED and importlib.util.find_spec("sklearn") is None:
        raise InputError(f"{method} needs scikit-learn: pip install 'interp[saliency]'; --method occlusion does not")


def refuse(method: str, given: Mapping[str, Any], why: str) -> None:
    """Refuse arguments that a method has no use for.

    Raises
    ------
    InputError
        One of them is given.
    """
    named = next((name for name, value in given.items() if value is not None), None)
    if named is not None:
        raise InputError(f"{method} takes no {named}: {why}; drop it, or use method ig")


def check(steps: int, samples: int, counterfactual: Any, baseline: str | None) -> None:
    """Refuse what cannot be.

    Raises
    ------
    InputError
        No steps, too few samples, or two baselines.
    """
    if steps < 1:
        raise InputError(f"--steps {steps} takes no gradient; use 1 or more")
    if samples < 20:
        raise InputError(f"--samples {samples} are too few to fit anything to; use 20 or more")
    if counterfactual is not None and baseline is not None:
        raise InputError("the counterfactual is the baseline; give one of them")


def start(method: str, counterfactual: Any, baseline: str | None) -> str:
    """Return the name of what a method starts from: gradient × input is compared with zero."""
    if counterfactual is not None:
        return "counterfactual"
    return "zero" if method == "gradient-input" else baseline or "mean"


def noted(result: SaliencyResult, *, partial: bool = False) -> SaliencyResult:
    """Return `result` with what must be known before it is believed."""
    stopped = f"partial: interrupted after {result.steps} gradients, before the parts met the difference"
    notes = [stopped] if partial else []
    lost = ~np.isfinite(result.attribution)
    if lost.any():
        first = int(lost.argmax())
        notes.append(f"the attribution is NaN or infinite at {int(lost.sum())} positions, from position {first} on")
    elif result.relative_gap > WARNED and result.method not in UNSUMMED:
        first = "this method is a first-order estimate" if result.steps == 1 else f"after {result.steps} gradients"
        easier = "" if result.counterfactual else "a counterfactual prompt is an easier baseline, or "
        more = "" if result.steps == 1 else f"; {easier}raise the steps"
        notes.append(
            f"warning: the parts sum to {result.total:+.3f} and the {result.metric} differs by "
            f"{result.value - result.reference:+.3f} from the baseline, a gap of {result.relative_gap:.0%}: "
            f"{first}{more}"
        )
    if result.method == "occlusion":
        notes.append("one token at a time is replaced: what tokens do together, or for each other, is in no part")
    if result.error:
        notes.append("which tokens are replaced is sampled: error tells how far two halves of the samples are apart")
    if result.method == "rollout":
        notes.append("rollout follows attention alone, without values and MLPs: it says what can be reached, not used")
    return replace(result, notes=tuple(notes))
