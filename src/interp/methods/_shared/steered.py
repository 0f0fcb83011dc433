"""A feature's direction added to what a model reads, and what the model then says: what a dashboard asks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.errors import InputError
from interp.methods._shared.models import likeliest_of_both

if TYPE_CHECKING:
    from interp.engine.model.generation import Generated
    from interp.engine.model.loaded import LoadedModel
    from interp.methods._shared.feature_result import FeatureResult
    from interp.spec import Prompt


@dataclass(frozen=True)
class Written:
    """How a model went on with a text.

    Attributes
    ----------
    text, tokens
        What it wrote, as one text and as token strings.
    stopped
        Why it ended, as in `GenerateResult`.
    """

    text: str
    tokens: tuple[str, ...]
    stopped: str


@dataclass(frozen=True, kw_only=True)
class Steered:
    """What a model says as it is, and with a feature's direction added at every token.

    Attributes
    ----------
    strength
        What the direction was multiplied by.
    length, stream
        How long what was added is, and the median length of the residual stream there over the prompt's tokens.
    prompt
        The prompt's token strings.
    plain, steered
        How the model goes on as it is, and with the direction added; of each next token the likeliest.
    likeliest
        (token string, probability as it is, probability with the direction) of the token after the prompt: the
        likeliest of both, those of the steered model first.
    """

    strength: float
    length: float
    stream: float
    prompt: tuple[str, ...]
    plain: Written
    steered: Written
    likeliest: tuple[tuple[str, float, float], ...]


def steered(model: LoadedModel, feature: FeatureResult, prompt: Prompt, strength: float, n: int, top: int) -> Steered:
    """Return what a model says with a feature's direction added, beside what it says as it is.

    Raises
    ------
    InputError
        A strength that is not finite, no tokens asked for, or what `generate` refuses.
    """
    import torch

    from interp.engine.model import generation
    from interp.engine.model.changes import Changes
    from interp.engine.model.sampling import Sampling

    if not math.isfinite(strength):
        raise InputError(f"strength {strength} is not finite; use a number such as 4")
    if top < 1:
        raise InputError(f"top={top} lists nothing; use 1 or more")
    encoded = model.encode(prompt)
    added = feature.intervention(strength)
    changes = Changes((added,) if strength else ())
    generation.check(model, len(encoded.ids), n, Sampling(), changes)
    name = added.site.hook_name
    stream = model.activations(encoded, [name])[name][0].float().norm(dim=-1).median()
    end = model.tokens.turn_end(prompt)
    made = [generation.generate(model, encoded.ids, n, changes=one, turn_end=end)[0] for one in (Changes(), changes)]
    for one in made:
        if one.interrupt is not None:
            raise one.interrupt
    before, after = (one.first.float().softmax(-1) for one in made if one.first is not None)
    return Steered(
        strength=strength,
        length=float(torch.as_tensor(added.value).norm()),
        stream=float(stream),
        prompt=encoded.strings,
        plain=_written(model, made[0], prompt),
        steered=_written(model, made[1], prompt),
        likeliest=tuple(likeliest_of_both(model, before, after, top)),
    )


def _written(model: LoadedModel, made: Generated, prompt: Prompt) -> Written:
    from interp.engine.model import generation

    text = generation.written(model, made, turn=bool(prompt.turns))
    return Written(text, model.tokens.strings(made.ids)[0], made.stopped)
