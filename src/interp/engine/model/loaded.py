"""A loaded model: the bridge, its lock, its shape, its state's fingerprint, and the one door to its activations."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from interp.engine import memory
from interp.engine.model import forward as passes
from interp.engine.model import site_shapes
from interp.engine.model.carried import Carried
from interp.engine.model.fingerprint import settings
from interp.engine.model.forward import LAST_LOGITS, LOGITS, capture, require_fired, switches
from interp.engine.model.hooks import Hook
from interp.engine.model.interventions import Features, functions_of, required
from interp.engine.model.operation import Operated, Operation
from interp.engine.model.origin import Origin
from interp.engine.model.run import Run
from interp.engine.model.store import ActivationStore
from interp.engine.model.streamed import Streamed
from interp.engine.model.tokens import Encoded
from interp.errors import InputError
from interp.ids import as_ids
from interp.sites import Site
from interp.spec import Intervention, Prompt, as_prompt


def no_logits(what: str, why: str = "has no language-model head") -> str:
    """Return why a model whose forward gives no logits of each token, as other heads' do not, is not taken."""
    return (
        f"{what} {why}: load it with AutoModelForCausalLM, an encoder with "
        "AutoModelForMaskedLM, or give interp.load its folder or its name"
    )


class LoadedModel(Operated):
    """A TransformerBridge with what interp keeps beside it.

    Parameters
    ----------
    name
        What commands call it.
    bridge
        The live model; yours to use and to change at any time.
    budget, disk_budget
        Of the activation store, in bytes.
    notes
        What loading did that is worth knowing.
    lacks_head
        The name of a language-model head that the checkpoint does not hold, or an empty string.
    reference
        Some token ids and the model's logits of them before it was wrapped, ``float32 [position, d_vocab]``; the
        bridge is compared with them.
    max_memory
        How many bytes of weights may be in memory, where they stay in their files.
    on_disk
        The addresses of weights that stay there, where only some do.

    Attributes
    ----------
    shapes, odd
        Hook name → the shape of a site's activation in the first forward; → how it is not what the table of sites says,
        for those that are not, which the model then does not have.
    lock
        Held by every forward of interp's own.
    geometry
        The model's shape.
    store
        Its activation store.
    doubt
        Why what it computes may not be what the model does, or an empty string; every result says it.
    unread
        State and site → why writing there does nothing (see `interventions.unread`); an empty string where it does.
    feature_sets
        Name → a set of dictionaries that is loaded for it (see `interp.engine.features.held`), the current one last.
    forwards
        Forward passes that interp has run on it.
    streamed
        Its weights, where they stay in their files or are on several devices.
    origin
        Where it came from; ``None`` where nobody said.
    """

    def __init__(
        self,
        name: str,
        bridge: TransformerBridge,
        *,
        budget: int | None = None,
        disk_budget: int = 0,
        notes: Sequence[str] = (),
        lacks_head: str = "",
        reference: tuple[list[int], Tensor] | None = None,
        max_memory: int | None = None,
        on_disk: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__(name, bridge)
        blocks: list[Any] = list(getattr(bridge, "blocks", ()))
        if any(parameter.device != self.device for block in blocks for parameter in block.parameters()):
            inside = {id(parameter) for block in blocks for parameter in block.parameters()}
            rest = sum(one.nbytes for one in self.hf_model.parameters() if id(one) not in inside)
            self.streamed = Carried(blocks, rest, self.device, max_memory)
        elif max_memory is not None or on_disk:
            self.streamed = Streamed(blocks, self.hf_model, max_memory, on_disk)
        self.notes = tuple(notes)
        self.lacks_head = lacks_head
        self.store = ActivationStore(
            memory.free_bytes(self.device) // 4 if budget is None else budget, disk_budget=disk_budget
        )
        self.unread: dict[tuple[str, Site], str] = {}  # state, place → why writing there does nothing
        self.feature_sets: dict[str, Features] = {}
        self.origin: Origin | None = None
        # The bridge wires hooks of its own in its first forward; after it no more hooks come of themselves.
        g = self.geometry
        ids = reference[0] if reference else [n % g.d_vocab for n in range(min(site_shapes.TOKENS, g.n_ctx))]
        seen = site_shapes.Seen(self)
        logits = passes.forward(self, [ids], seen.functions)
        if not (isinstance(logits, Tensor) and logits.dim() == 3):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(no_logits(f"{name} ({type(self.hf_model).__name__})"))
        self.geometry = replace(g, d_vocab_out=logits.shape[-1])
        self.shapes, self.odd = seen.shapes, seen.odd(len(ids))
        if reference is not None:
            self._compare(logits[0].float().cpu(), reference[1])

    def _compare(self, logits: Tensor, expected: Tensor) -> None:
        """Doubt a bridge whose logits are others than the model's own."""
        rough = 1e-3 if self.dtype in {"float32", "float64"} else 0.1
        most = rough * max(1.0, float(expected.abs().max()))
        if logits.shape == expected.shape and not (off := float((logits - expected).abs().max())) <= most:
            self.doubt = f"transformer-lens computes this model otherwise than Hugging Face: logits {off:.2g} apart"
            self.notes = (*self.notes, self.doubt)

    def encode(self, prompt: Prompt) -> Encoded:
        """Return `prompt` as tokens, and note it in the current command's record."""
        encoded = self.tokens.encode(prompt)
        if self._operation is not None:
            self._operation.tokens.append(encoded.ids)
            self._operation.notes.extend(encoded.notes)
        return encoded

    def activations(self, tokens: Encoded, sites: Sequence[str]) -> dict[str, Tensor]:
        """Return activations of one prompt, from the store where it has them: the only door to it.

        Parameters
        ----------
        tokens
            The prompt.
        sites
            Hook names, ``"logits"`` (all positions) or ``"last_logits"`` (the last position alone).

        Returns
        -------
        dict
            Site → tensor with a batch axis of 1 in front, on the model's device; shared, not to be written to.

        Raises
        ------
        InputError
            A site that this model lacks, or a run that cannot fit into memory.
        """
        return self.operate(
            "activations", {"sites": list(sites)}, lambda operation: self._look_up(tokens, sites, operation)
        )

    def _look_up(self, tokens: Encoded, sites: Sequence[str], operation: Operation) -> dict[str, Tensor]:
        if operation.altered:  # what the user's functions do is not in any key
            if not operation.path.startswith("hooked: "):  # what says so already may say where, too
                operation.path = f"hooked: {operation.altered}"
            return self._compute(tokens, sites, operation)
        if operation.random:  # a stored answer would be one draw, for ever
            return self._compute(tokens, sites, operation)
        context = self._key(tokens.ids, operation.fingerprint)
        found = {site: self.store.get((*context, site)) for site in sites}
        missing = [site for site, tensor in found.items() if tensor is None]
        computed = self._compute(tokens, missing, operation) if missing else {}
        for site, tensor in computed.items():
            self.store.put((*context, site), tensor)
        present = {site: tensor for site, tensor in found.items() if tensor is not None}
        return {site: (present | computed)[site] for site in sites}

    def run(
        self,
        prompt: Any,
        interventions: Sequence[Intervention] = (),
        *,
        bos: bool | None = None,
        truncate: bool = False,
    ) -> Run:
        """Run a prompt and return its logits and, lazily, its activations.

        Parameters
        ----------
        prompt
            A text, a tuple of two sentences, token ids, a tokenizer's output, or a `Prompt`.
        interventions
            Changes of the run: patches, ablations, steering, functions. The store is then left alone.
        bos, truncate
            As in `Prompt`.

        Raises
        ------
        InputError
            A prompt that cannot be used, or an intervention on what is not there.

        Examples
        --------
        >>> interp.model.run("The capital of France is").logits.shape
        torch.Size([1, 6, 1656])
        """
        asked = as_prompt(prompt, bos, truncate)

        def once(operation: Operation) -> Run:
            encoded = self.encode(asked)
            if not interventions:
                return Run(self, encoded, self.activations(encoded, [LOGITS])[LOGITS], operation.fingerprint)
            functions = functions_of(self, interventions, len(encoded.ids))
            logits = self.forward([encoded.ids], functions, last_only=False)
            return Run(self, encoded, logits, operation.fingerprint, functions)

        return self.operate("run", {"prompt": prompt}, once)

    def close(self) -> None:
        """Let go of the bridge, the store's entries and the device's reserve; the object says then that it is unloaded.

        ``Out`` and the user's names keep this object, and must not keep the weights with it.
        """
        if self._bridge is None:
            return
        device = self.device
        self._bridge = None
        self.feature_sets.clear()
        self.store.clear()
        memory.empty_cache(device)

    def _key(self, ids: Sequence[int], state: str) -> tuple[Any, ...]:
        return (state, self.dtype, str(self.device), settings(), as_ids(ids))

    def _compute(self, tokens: Encoded, sites: Sequence[str], operation: Operation) -> dict[str, Tensor]:
        if self.lacks_head and {LOGITS, LAST_LOGITS} & set(sites):
            raise InputError(
                f"the checkpoint of {self.name} holds no language-model head ({self.lacks_head}): "
                "it has no predictions; attention and activations work"
            )
        held, logits = capture(self, tokens.ids, sites, self._first(len(tokens.ids)))
        self.count(1)
        operation.path = "forward" if operation.path == "store" else operation.path
        # The last position's logits come with every forward and cost little: predict after attention runs nothing.
        if not self.lacks_head and not switches(self, held):
            held[LAST_LOGITS] = logits[:, -1].clone()
        if LOGITS in sites:
            held[LOGITS] = logits
        return held

    def forward(
        self,
        prompts: Sequence[Sequence[int]],
        functions: Mapping[str, Hook],
        *,
        last_only: bool = True,
        gradients: bool = False,
        past: Any = None,
        plainly: bool = False,
    ) -> Tensor:
        """Run prompts of one length with functions on hooks, past the store.

        Interventions of the command come before them.

        Parameters
        ----------
        prompts
            Token ids, ``[prompt][position]``; `TypedIds` run with their types.
        functions
            Hook name → ``(tensor, hook) -> tensor | None``.
        last_only
            Whether the last position's logits are enough.
        gradients
            Whether autograd records the run.
        past
            A Hugging Face cache of the keys and values of what stands before `prompts`; theirs are added to it.
        plainly
            Whether the command's interventions are left out: where the model itself is asked about.

        Returns
        -------
        Tensor
            Logits, ``[prompt, position or 1, d_vocab]``.
        """

        def once(operation: Operation) -> Tensor:  # noqa: ARG001
            first = {} if plainly else self._first(len(prompts[0]))
            logits = passes.forward(
                self, prompts, functions, last_only=last_only, gradients=gradients, past=past, first=first
            )
            self.count(1)
            return logits[:, -1:] if last_only else logits

        return self.operate("forward", {}, once)

    def intervene(self, given: Any) -> None:
        """Change every run of the command that is under way.

        Parameters
        ----------
        given
            An `Intervention`, or several; ``None`` changes nothing.

        Raises
        ------
        InputError
            Something else, or a change of what is not there.
        """

        def once(operation: Operation) -> None:
            operation.interventions = required(self, given)

        self.operate("run", {}, once)

    def _first(self, length: int) -> Mapping[str, Hook]:
        """Return the functions that make the command's interventions in a run of so many tokens.

        One at a position that the run does not have changes nothing in it: a command's runs can be of many lengths.
        """
        operation = self._operation
        if operation is None or not operation.interventions:
            return {}
        if length not in operation.functions:
            there = [one for one in operation.interventions if one.position is None or -length <= one.position < length]
            operation.functions[length] = functions_of(self, there, length)
        return operation.functions[length]

    def captured(self, tokens: Encoded, name: str, functions: Mapping[str, Hook]) -> Tensor:
        """Return one activation of a run with functions on hooks, as it goes on from there; past the store."""
        held: dict[str, Tensor] = {}
        own = functions.get(name)

        def keep(tensor: Tensor, hook: HookPoint) -> Tensor:
            changed = tensor if own is None else own(tensor, hook)
            held[name] = changed.detach().clone()
            return changed

        self.forward([tokens.ids], {**functions, name: keep})
        require_fired(self, name, held)
        return held[name]

    def activations_of(self, ids: Sequence[int], sites: Sequence[str]) -> dict[str, Tensor]:
        """Return `activations` of token ids that are known to be good."""
        return self.activations(Encoded(as_ids(ids), (), {}), sites)

    @property
    def state(self) -> Hashable:
        """All that a forward of the current command depends on but its prompt.

        ``None`` outside of commands, and where a command's interventions are on it, which no key holds.
        """
        operation = self._operation
        return None if operation is None or operation.interventions else self._key((), operation.fingerprint)

    def recall(self, ids: Sequence[int], names: Sequence[Hashable]) -> dict[Any, Tensor] | None:
        """Return what `keep` stored under `names` for a plain run of `ids`; ``None`` where any of it is missing."""

        def look(operation: Operation) -> dict[Any, Tensor] | None:
            if operation.altered or operation.random:
                return None
            context = self._key(ids, operation.fingerprint)
            found = {name: self.store.get((*context, name)) for name in names}
            held = {name: tensor for name, tensor in found.items() if tensor is not None}
            return held if len(held) == len(found) else None

        return self.operate("run", {}, look)

    def holds(self, ids: Sequence[int], names: Sequence[Hashable]) -> bool:
        """Return whether all of `names` of a plain run of `ids` are in the store, in a command; none is fetched."""
        operation = self._operation
        if operation is None or operation.altered or operation.random:
            return False
        return all((*self._key(ids, operation.fingerprint), name) in self.store for name in names)

    def keep(self, ids: Sequence[int], tensors: Mapping[Any, Tensor]) -> None:
        """Store parts of a plain run of `ids` by name; they are not to be written to any more."""

        def put(operation: Operation) -> None:
            if not (operation.altered or operation.random):
                for name, tensor in tensors.items():
                    self.store.put((*self._key(ids, operation.fingerprint), name), tensor)

        self.operate("run", {}, put)
