"""The vocabulary of interp: plain data that every layer shares. Imports neither torch nor numpy."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, SupportsIndex, cast

from interp.errors import InputError, unknown
from interp.metric import METRICS as METRICS
from interp.metric import Metric as Metric
from interp.metric import resolve_metric as resolve_metric
from interp.prompts import Prompt as Prompt
from interp.prompts import Prompts as Prompts
from interp.prompts import as_prompt as as_prompt
from interp.prompts import plain as plain
from interp.sites import FEATURES, Site, SiteKind

# What a parameter's value names. The annotation is what the command line, the completer and the help read.
Indices = Annotated[int | Sequence[int] | None, "indices"]
ModelName = Annotated[str, "model"]
LoadableName = Annotated[str, "loadable"]
CommandName = Annotated[str, "command"]
HeadName = Annotated[str, "head"]
HookName = Annotated[str, "hook"]
DeviceName = Annotated[str, "device"]
DtypeName = Annotated[str, "dtype"]
SiteName = Annotated[str, "site"]
StreamSite = Annotated[str, "stream site"]  # one of the residual stream's width
FeaturePoint = Annotated[str, "feature point"]  # where a dictionary of features reads
FeatureSource = Annotated[str, "feature source"]  # a folder of dictionaries, or a hub name
FeaturesName = Annotated[str, "features"]  # a loaded set of dictionaries
FeatureName = Annotated[str, "feature"]  # one feature, by its layer and number
FeatureNames = Annotated[str | Sequence[str], "feature list"]
UnloadableName = Annotated[str, "unloadable"]  # a model, or a set of features
PoolName = Annotated[str, "pool"]  # where work runs: here, processes or how many, ray or where that is
MetricName = Annotated[str, "metric"]
PromptName = Annotated[Any, "prompt"]  # a text, a pair of sentences, or token ids
TokenName = Annotated[str | int, "token"]
Components = Annotated[str | Sequence[str], "components"]
HeadNames = Annotated[str | Sequence[str], "heads"]  # components, heads above all
ControlNames = Annotated[str | Sequence[str], "controls"]  # of a claim: all, none, or some of them
FileNames = Annotated[str | Sequence[str] | None, "files"]  # one or several, with spaces between them
Numbers = Annotated[str | Sequence[float], "numbers"]
Examples = Annotated[str | Sequence[str], "examples"]
Variable = Annotated[Any, "variable"]  # in a magic, the name of what the notebook holds
SavedResult = Annotated[Any, "saved result"]  # in a magic, the name of a result that the notebook holds, or a file
Direction = Annotated[Any, "direction"]  # the same, or a feature such as F2.417


def as_answers(given: Any, which: str = "answer") -> tuple[str | int, ...]:
    """Return an answer, or several, as texts and token ids; none for ``None``.

    Raises
    ------
    InputError
        One of them is neither a text nor a whole number.

    Examples
    --------
    >>> as_answers(" John"), as_answers(np.array([5, 6])), as_answers(None)
    ((' John',), (5, 6), ())
    """
    value = plain(given)
    if value is None:
        return ()
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    listed = [plain(item) for item in cast("Iterable[Any]", value)] if several else [value]
    for item in listed:
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise InputError(f"{which} {item!r} is neither a word, such as 'John', nor a token id")
    return tuple(listed)


def resolve_indices(chosen: Any, count: int, kind: str, where: str = "") -> tuple[int, ...]:
    """Check `chosen` against ``0 … count - 1`` and return it as a tuple; ``None`` means all of them.

    Raises
    ------
    InputError
        An index outside the range. Positions count from the end where they are negative, −1 being the last; of
        anything else negative indices are refused.

    Examples
    --------
    >>> resolve_indices(2, 12, "layer")
    (2,)
    """
    if chosen is None:
        return tuple(range(count))
    several = isinstance(chosen, Iterable) and not isinstance(chosen, str | bytes | dict)
    given: tuple[Any, ...] = tuple(cast("Iterable[Any]", chosen)) if several else (chosen,)
    if not given:
        raise InputError(f"no {kind} was named; {kind}s are 0–{count - 1}{where}")
    indices: dict[int, None] = {}
    for value in given:
        if isinstance(value, bool) or not isinstance(value, SupportsIndex):
            raise InputError(f"{kind} {value!r} is not a whole number; {kind}s are 0–{count - 1}{where}")
        index = operator.index(value)  # numpy's integers too
        if kind == "position" and -count <= index < 0:
            index += count
        if not 0 <= index < count:
            raise InputError(f"no {kind} {index}; {kind}s are 0–{count - 1}{where}")
        indices[index] = None
    return tuple(indices)


@dataclass(frozen=True)
class Pair:
    """Two prompts of one length that differ in what is studied, and the answers that tell them apart.

    Parameters
    ----------
    clean, corrupted
        The prompts.
        Texts and token ids, also as arrays and tensors, become one.
    answer, wrong
        The right and the wrong answers, as words or token ids; several make a set. ``"John"`` after running text is the
        token of " John".
    slots
        Name → positions of the parts that the pair was made from, such as ``{"io": (2,)}``.
    literal
        Whether the answers are to be taken letter by letter, without a space in front that they do not have.

    Examples
    --------
    >>> Pair("A B", "A C", "D", "E").answer
    ('D',)
    """

    clean: Prompt
    corrupted: Prompt
    answer: tuple[str | int, ...] = ()
    wrong: tuple[str | int, ...] = ()
    slots: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    literal: bool = False

    def __post_init__(self) -> None:
        made = {name: as_prompt(getattr(self, name)) for name in ("clean", "corrupted")}
        made |= {name: as_answers(getattr(self, name), name) for name in ("answer", "wrong")}
        for name, value in made.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Pairs:
    """What a technique over pairs is asked about: the pairs, and the task, or the file, that they came from.

    Examples
    --------
    >>> len(Pairs((Pair(Prompt("A B"), Prompt("A C")),)).pairs)
    1
    """

    pairs: tuple[Pair, ...]
    task: str = ""
    metric: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Texts:
    """What a technique over running text is asked about: the texts, and where they came from.

    Many that are read from a file or a dataset are no tuple but `lazy.Lazy`: go through them in order.

    Examples
    --------
    >>> len(Texts((Prompt("Once upon a time"), Prompt("The end"))).texts)
    2
    """

    texts: Sequence[Prompt]
    source: str = ""
    notes: tuple[str, ...] = ()  # on how a file was cut into texts


# A feature where a head could be meant, or the name of a variable: F2.417.
FEATURE = re.compile(r"F\d{1,9}\.\d{1,9}", re.IGNORECASE)
# As parts are typed (8.6, 8.6.q, 3.mlp, m3) and as they are drawn (L8H6, L8H6 q, L3 MLP).
_HEAD = re.compile(r"L?(\d{1,9})[.H](\d{1,9})(?:[. ]([qkv]))?", re.IGNORECASE)
_MLP = re.compile(r"L?(\d{1,9})[. ]mlp|(?:m|mlp)(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True)
class Node:
    """One end of a path through the model: what writes to the residual stream, or one input that reads it.

    `kind` is ``"embed"``, ``"head"`` or ``"mlp"`` for what writes, ``"q"``, ``"k"``, ``"v"``, ``"mlp"`` or ``"logits"``
    for what reads, and ``"feature"`` for one of a dictionary that does both. `head` is the number of a head, of a KV
    head for keys and values, or of a feature.

    Examples
    --------
    >>> Node("q", 8, 6).name, Node("mlp", 3).name, Node("embed").name, Node("feature", 2, 417).name
    ('8.6.q', '3.mlp', 'embed', 'F2.417')
    >>> Node("q", 8, 6).drawn, Node("mlp", 3).drawn, Node("embed").drawn, Node("feature", 2, 417).drawn
    ('L8H6 q', 'L3 MLP', 'embed', 'F2.417')
    """

    kind: str
    layer: int = 0
    head: int = 0

    @staticmethod
    @lru_cache(maxsize=2**17)  # a circuit's tens of thousands of edges ask for their ends again and again
    def parse(text: str) -> Node:
        """Return the part that `text` names, as it is typed or as it is drawn.

        Raises
        ------
        InputError
            It names none.

        Examples
        --------
        >>> Node.parse("2.0") == Node.parse("L2H0"), Node.parse("L2.mlp").name, Node.parse("8.6.q")
        (True, '2.mlp', Node(kind='q', layer=8, head=6))
        >>> Node.parse("F2.417")
        Node(kind='feature', layer=2, head=417)
        """
        if text in {"embed", "logits"}:
            return Node(text)
        if match := _HEAD.fullmatch(text):
            return Node((match[3] or "head").lower(), int(match[1]), int(match[2]))
        if match := _MLP.fullmatch(text):
            return Node("mlp", int(match[1] or match[2]))
        if FEATURE.fullmatch(text):
            layer, _, number = text[1:].partition(".")
            return Node("feature", int(layer), int(number))
        raise InputError(
            f"{text!r} is no part of a model; type a head (5.1), its input (5.1.q), an MLP (5.mlp), embed or logits"
        )

    @property
    def name(self) -> str:
        """Return what arguments and results call it."""
        if self.kind in {"embed", "logits"}:
            return self.kind
        if self.kind == "mlp":
            return f"{self.layer}.mlp"
        if self.kind == "feature":
            return f"F{self.layer}.{self.head}"
        return f"{self.layer}.{self.head}" + ("" if self.kind == "head" else f".{self.kind}")

    @property
    def drawn(self) -> str:
        """Return what pictures call it."""
        if self.kind in {"embed", "logits"}:
            return self.kind
        if self.kind == "mlp":
            return f"L{self.layer} MLP"
        if self.kind == "feature":
            return self.name
        return f"L{self.layer}H{self.head}" + ("" if self.kind == "head" else f" {self.kind}")

    def writers(self, group: int) -> tuple[Node, ...]:
        """Return the nodes that an input belongs to: all `group` heads that share a key or value, the logits none."""
        if self.kind in {"k", "v"}:
            return tuple(Node("head", self.layer, self.head * group + n) for n in range(group))
        if self.kind == "logits":
            return ()
        return (Node("head", self.layer, self.head) if self.kind == "q" else self,)


MODES = ("replace", "zero", "mean", "add", "scale", "noise", "function")
FEATURE_MODES = ("replace", "zero", "add", "scale")


@dataclass(frozen=True)
class Intervention:
    """One change of a run: an activation, where in it, and what it becomes.

    Parameters
    ----------
    site
        The activation.
    head, position, neuron
        Where in it; ``None`` means everywhere. Key and value heads are numbered on their own.
    mode
        ``"replace"`` (by `value`, which broadcasts), ``"zero"``, ``"mean"`` (over positions), ``"add"`` `value`,
        ``"scale"`` by `value`, ``"noise"`` (`value` standard deviations of the activation), or ``"function"``:
        ``value(activation, hook)`` as transformer-lens' hooks are.
    value
        What `mode` needs: a number, an array, a tensor or a function.
    feature
        Of ``Site("features", …)``: which one; ``None``, for ``"zero"`` and ``"scale"``, means all of them. Its
        activation is what is changed, and so what its dictionary writes for it; what the dictionary does not explain
        stays as it is. An array is one number for each position. Changes of one layer's features are made together, of
        the activations before any of them; higher layers read what they made of the run.
    features
        The name of the loaded set that the feature is of; the one loaded last when not given.

    Raises
    ------
    InputError
        A mode that there is not, a part that the site has not, or no value where the mode needs one. Whether a model
        has the layer, the head and the position is known when it runs.

    Examples
    --------
    >>> Intervention(Site("z", 5), head=1, mode="zero").site.hook_name
    'blocks.5.attn.hook_z'
    >>> Intervention(Site("features", 2), feature=417, mode="scale", value=2.0)
    Intervention(Site(name='features', layer=2), feature=417, mode=scale, value=2.0)
    """

    site: Site
    head: int | None = None
    position: int | None = None
    neuron: int | None = None
    mode: str = "replace"
    value: Any = None
    feature: int | None = None
    features: str | None = None

    def __post_init__(self) -> None:
        site, kind = self.site, getattr(self.site, "kind", None)
        if not isinstance(kind, SiteKind):
            raise InputError(f"an intervention's site is an interp.Site, such as interp.Site('z', 5), not {site!r:.60}")
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES, f"use {', '.join(MODES)}")
        for index in ("head", "position", "neuron", "feature"):
            given = getattr(self, index)
            if isinstance(given, Iterable) and not isinstance(given, str):
                raise InputError(f"one {index} to an intervention; give one intervention for each {index}")
            if given is not None and (isinstance(given, bool) or not isinstance(given, SupportsIndex)):
                raise InputError(f"{index} {given!r:.60} is not a whole number")
        if self.head is not None and not kind.headed:
            raise InputError(f"{site.name} has no heads")
        if self.neuron is not None and kind.parts != "neuron":
            raise InputError(f"{site.name} has no neurons; use Site('neuron', {site.layer})")
        self._check_features(kind)
        if self.mode in {"replace", "add", "scale", "noise"} and self.value is None:
            raise InputError(f"{self.mode} needs a value")
        if self.mode == "mean" and kind.heads_first:
            raise InputError("the mean of a pattern over positions is no pattern; use zero, scale or a function")
        if self.mode == "function" and not callable(self.value):
            raise InputError("a function intervention needs a function (activation, hook) as its value")

    def _check_features(self, kind: SiteKind) -> None:
        if kind is not FEATURES:
            if self.feature is not None or self.features is not None:
                raise InputError(f"{self.site.name} has no features; use Site('features', {self.site.layer})")
            return
        if self.mode not in FEATURE_MODES:
            raise InputError(f"features are not changed by {self.mode}; use {', '.join(FEATURE_MODES)}")
        if self.feature is None and self.mode in {"replace", "add"}:
            raise InputError(f"{self.mode} is of one feature: say which, such as feature=417")

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name in ("head", "position", "neuron", "feature", "features", "mode")}
        given["value"] = self.value
        shape = getattr(self.value, "shape", None)
        if shape is not None:
            given["value"] = f"{type(self.value).__name__} {list(shape)}"
        said = [f"{name}={value}" for name, value in given.items() if value is not None]
        return f"Intervention({', '.join([repr(self.site), *said])})"


def as_interventions(given: Any) -> tuple[Intervention, ...]:
    """Return interventions as a call gives them: none, one, or several.

    Raises
    ------
    InputError
        Something else.
    """
    if given is None:
        return ()
    if isinstance(given, Intervention):
        return (given,)
    if not isinstance(given, list | tuple):
        raise InputError(f"interventions are a list of interp.Intervention, not {type(given).__name__}")
    return tuple(cast("list[Intervention]", given))
