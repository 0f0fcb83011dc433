"""What looking at one feature returns: where it is active, what its weights say, and which features are like it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.errors import InputError, printable
from interp.methods._shared.favourites import Favourite
from interp.prompts import as_prompt
from interp.results import Result, resolve
from interp.results.tables import frame_of
from interp.sites import Site
from interp.spec import Intervention

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.methods._shared.steered import Steered
    from interp.results.tables import Float

Ranked = tuple[tuple[str, float], ...]  # names and values
_USUAL = 4  # times its largest activation


@dataclass(frozen=True)
class Exemplar:
    """A place where a feature is active, with what stands around it.

    Attributes
    ----------
    activation
        At the token itself.
    decile
        In which tenth of the feature's activations it is: 10 are the strongest.
    tokens, around
        Tokens, and the feature's activation at each; NaN at a BOS, which is left out.
    peak
        Which of them it is.
    times
        How many of the places that were kept have the same tokens around.
    text, position
        Where: which of the texts, and which of its tokens.
    """

    activation: float
    decile: int
    tokens: tuple[str, ...]
    around: tuple[float, ...]
    peak: int
    times: int
    text: int
    position: int


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FeatureResult(Result):
    """What one feature does in texts, and what its weights say.

    Attributes
    ----------
    name
        Layer and number, such as ``"2.417"``.
    of, kind, reads, writes
        Its set, ``sae``, ``transcoder`` or ``clt``, and the points where it reads and writes.
    label, label_scores
        The rule that was found for it, in words, and ``precision``, ``recall`` and ``F1`` of that on texts held out;
        empty where none was looked for or found: see `features-label`.
    fired, tokens_read, texts
        At how many tokens it is active, of how many, in how many texts.
    mean, most
        Of its activations where it is active.
    edges, histogram
        ``float64 [bin + 1]`` and ``int64 [bin]``: its activations that are not 0, in bins that widen by a factor of
        2^¼.
    exemplars
        The strongest first. Of each tenth some, drawn from all places in it.
    promoted, suppressed
        Tokens and what an activation of 1 adds to their logits directly, through the final norm's gain, of logits
        centred over the vocabulary and a residual stream of size 1.
    tokens, heads
        What it reads: tokens by the cosine of their embedding and its encoder, through the norm's gain, and heads by
        ‖ê W_OV‖, what of a head's output comes to its encoder, of length 1.
    near
        Features of the set and layer by the cosine of their decoders with its own.
    together
        Those that are active where it is, by the correlation φ of being active, and ``shares``, of the tokens where it
        is active, those where they are.
    shares
        See `together`.
    direction, site
        ``float32 [d_model]``: what an activation of 1 adds to the residual stream in its layer, and where that is
        there: ``interp.steer(text, direction=result, strength=4)`` adds four times as much, and `steered` asks so of
        the live view. Empty where it is unknown.
    source
        Where the texts came from.
    favourite
        With `--optimise`, the input that was found to drive it most.
    """

    name: str
    of: str
    kind: str
    reads: str
    writes: str
    label: str
    label_scores: Mapping[str, float]
    fired: int
    tokens_read: int
    texts: int
    mean: float
    most: float
    edges: Float
    histogram: NDArray[np.int64]
    exemplars: tuple[Exemplar, ...]
    promoted: Ranked
    suppressed: Ranked
    tokens: Ranked
    heads: Ranked
    near: Ranked
    together: Ranked
    shares: tuple[float, ...]
    direction: NDArray[np.float32]
    site: str
    source: str = ""
    favourite: Favourite | None = None

    _html: ClassVar[str] = "interp.views.feature:html"
    _svg: ClassVar[str | None] = "interp.views.feature:svg"
    _widget: ClassVar[str | None] = "interp.widgets.feature:FeatureWidget"

    @property
    def density(self) -> float:
        """The share of tokens at which it is active."""
        return self.fired / max(1, self.tokens_read)

    @property
    def layer(self) -> int:
        """The layer where it writes."""
        return int(self.name.partition(".")[0])

    @property
    def drawn(self) -> str:
        """What pictures call it."""
        layer, number = self.name.split(".")
        return f"L{layer} feature {number}"

    @property
    def optimised(self) -> Exemplar | None:
        """The input that was found to drive it most as an exemplar: of no text, and of its own tenth."""
        found = self.favourite
        if found is None:
            return None
        last = len(found.tokens) - 1
        return Exemplar(found.activation, 10, found.tokens, found.around, last, 1, -1, last)

    @property
    def opening(self) -> str:
        """The text of the strongest exemplar, up to its place: what `steered` goes on with when it is given none."""
        if not self.exemplars:
            return ""
        one = self.exemplars[0]
        read = zip(one.tokens[: one.peak + 1], one.around, strict=False)
        return "".join(token for token, value in read if not np.isnan(value)).lstrip()

    @property
    def unit(self) -> float:
        """What strengths are counted in: its largest activation in the texts, or 1 where it is never active."""
        return self.most or 1.0

    @property
    def usual(self) -> float:
        """How strongly `steered` adds it when no strength is given: 4 units."""
        return _USUAL * self.unit

    def intervention(self, strength: float) -> Intervention:
        """Return its direction, `strength` times as long, added to the residual stream, for ``interp.generate``.

        Raises
        ------
        InputError
            It has no direction there.

        Examples
        --------
        >>> result.intervention(4.0).site.hook_name
        'blocks.2.hook_resid_post'
        """
        if not self.direction.size:
            layer, number = self.name.split(".")
            raise InputError(
                f"{self.name} has no direction of the residual stream; change its activation with interp.Intervention("
                f"interp.Site('features', {layer}), feature={number}, mode='add', value=…) in generate"
            )
        return Intervention(Site(self.site, self.layer), mode="add", value=self.direction * np.float32(strength))

    def steered(self, prompt: Any = None, strength: float | None = None, *, n: int = 20, top: int = 5) -> Steered:
        """Return what the model says with its direction added, beside what it says as it is; needs the model loaded.

        Parameters
        ----------
        prompt
            The text to go on with; `opening` when not given.
        strength
            What the direction is multiplied by, as in ``interp.steer(prompt, direction=result, strength=…)``, which
            writes the same; `usual`, 4 times its largest activation, when not given.
        n
            How many tokens to write.
        top
            How many of the likeliest next tokens of each.

        Returns
        -------
        Steered
            ``plain`` and ``steered``, how it goes on, and ``likeliest``, what comes next.

        Raises
        ------
        InputError
            It has no direction, or there is no text; the model is gone, busy, or has changed since.

        Examples
        --------
        >>> said = result.steered("Once upon a time", 0.0, n=3)
        >>> said.plain.text == said.steered.text
        True
        """
        given = self.opening if prompt is None else prompt
        if prompt is None and not given:
            raise InputError(f"{self.name} is active nowhere in these texts; give steered a text to go on with")
        size = self.usual if strength is None else float(strength)
        self.intervention(size)  # whether it has a direction is known without the model
        steered: Callable[..., Steered] = resolve("interp.methods._shared.steered:steered")
        return self._run(lambda model: steered(model, self, as_prompt(given), size, n, top), "steering")

    def by_decile(self) -> Iterator[tuple[int, list[Exemplar]]]:
        """Yield the tenths of its activations that there is something of, the strongest first, and their exemplars."""
        for decile in range(10, 0, -1):
            own = [one for one in self.exemplars if one.decile == decile]
            if own:
                yield decile, own

    def summary(self) -> str:
        """Return how often it is active, and what it is labelled."""
        said = f"{self.drawn} of {self.of}: active at {self.density:.2%} of {self.tokens_read:,} tokens"
        return said + (f"; {self.label}" if self.label else "")

    def text(self) -> str:
        """Return the summary, the strongest exemplars and what its weights say."""
        lines = [repr(self)]
        if self.favourite is not None:
            words = "".join(self.favourite.tokens)
            lines.append(f"an input found by gradients: {self.favourite.activation:.3g}  {printable(words)}")
        for decile, own in self.by_decile():
            lines.append(f"tenth {decile} of its activations" if decile < 10 else "strongest tenth of its activations")
            for one in own[:6] if decile == 10 else [own[len(own) // 2]]:
                words = [f"[{token}]" if n == one.peak else token for n, token in enumerate(one.tokens)]
                lines.append(
                    f"  {one.activation:8.3g}  {printable(''.join(words))}{f'  ×{one.times}' * (one.times > 1)}"
                )
        for said, ranked in (
            ("promotes", self.promoted),
            ("suppresses", self.suppressed),
            ("reads tokens", self.tokens),
            ("reads heads", self.heads),
            ("writes as", self.near),
            ("active with", self.together),
        ):
            if ranked:
                lines.append(f"{said}: " + ", ".join(f"{printable(name)!r} {value:+.2f}" for name, value in ranked))
        return "\n".join([*lines, *(f"note: {printable(note)}" for note in self.notes)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per exemplar: activation, tenth, token, text, position, how often, context."""
        rows = [
            (one.activation, one.decile, one.tokens[one.peak], one.text, one.position, one.times, "".join(one.tokens))
            for one in self.exemplars
        ]
        columns = ["activation", "tenth", "token", "text", "position", "times", "context"]
        return frame_of(rows, columns=columns)
