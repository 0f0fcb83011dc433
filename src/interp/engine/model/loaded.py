"""A loaded model: the bridge, its lock, its shape, its state's fingerprint, and the one door to its activations."""

from __future__ import annotations

import importlib.metadata
import inspect
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources.native import NativeModel

from interp.engine import memory
from interp.engine.model import hooks
from interp.engine.model.fingerprint import State
from interp.engine.model.fingerprint import inspect as inspect_state
from interp.engine.model.interventions import functions_of
from interp.engine.model.run import Run
from interp.engine.model.store import ActivationStore
from interp.engine.model.tokens import Encoded, Tokens, as_prompt
from interp.errors import InputError, OutOfMemory, closest, printable
from interp.results import Own, Provenance, Result
from interp.sites import Site
from interp.spec import Intervention, Prompt

AnyResult = TypeVar("AnyResult", bound=Result)
Value = TypeVar("Value")

# Token ids and the logits of them, ``float32 [position, d_vocab]``.
Said = tuple[list[int], Tensor]

LAST_LOGITS = "last_logits"
LOGITS = "logits"

# Hook points that the bridge computes only on demand, and the switch for each.
_GATES = {
    "attn.hook_result": "use_attn_result",
    "attn.hook_q_input": "use_split_qkv_input",
    "attn.hook_k_input": "use_split_qkv_input",
    "attn.hook_v_input": "use_split_qkv_input",
    "attn.hook_attn_in": "use_attn_in",
    "hook_mlp_in": "use_hook_mlp_in",
}


@dataclass(frozen=True)
class Geometry:
    """The model's shape; `n_kv_heads` equals `n_heads` where heads share no keys and values."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    n_ctx: int
    causal: bool


@dataclass
class Operation:
    """One command's work on a model, from which its provenance is written."""

    technique: str
    arguments: Mapping[str, Any]
    fingerprint: str
    user_hooks: tuple[str, ...]
    random: bool = False
    started: float = field(default_factory=time.perf_counter)
    forwards: int = 0
    tokens: list[list[int]] = field(default_factory=list[list[int]])
    notes: list[str] = field(default_factory=list[str])
    path: str = "store"
    on_step: Callable[[int, int, str], None] = lambda done, total, said: None  # noqa: ARG005
    on_partial: Callable[[Callable[[], Result]], None] | None = None


class LoadedModel:
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
    before
        What the model said of some tokens before it was wrapped; the bridge is compared with it.

    Attributes
    ----------
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
    forwards
        Forward passes that interp has run on it.
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
        before: Said | None = None,
    ) -> None:
        self.name = printable(name)
        self._bridge: TransformerBridge | None = bridge
        self.notes = tuple(notes)
        self.lacks_head = lacks_head
        self.doubt = ""
        self.lock = threading.RLock()
        self.geometry = _geometry(bridge)
        self.forwards = 0
        self._tokens: Tokens | None = None
        self.store = ActivationStore(
            memory.free_bytes(self.device) // 4 if budget is None else budget, disk_budget=disk_budget
        )
        self._operation: Operation | None = None
        self.unread: dict[tuple[str, Site], str] = {}  # state, place → why writing there does nothing
        ids, said = before or ([0], None)
        # The bridge wires hooks of its own in its first forward; after it the census is at its baseline.
        logits = self._forward([ids], {})
        if said is not None:
            self._compare(logits[0].float().cpu(), said)

    def __repr__(self) -> str:
        if self._bridge is None:
            return f"LoadedModel({self.name}: unloaded)"
        g = self.geometry
        return f"LoadedModel({self.name}: {g.n_layers} layers × {g.n_heads} heads, {self.dtype} on {self.device})"

    def _compare(self, logits: Tensor, said: Tensor) -> None:
        """Doubt a bridge whose logits are others than the model's own."""
        rough = 1e-3 if self.dtype in {"float32", "float64"} else 0.1
        most = rough * max(1.0, float(said.abs().max()))
        if logits.shape == said.shape and not (apart := float((logits - said).abs().max())) <= most:
            self.doubt = f"transformer-lens computes this model otherwise than Hugging Face: logits {apart:.2g} apart"
            self.notes = (*self.notes, self.doubt)

    def __getattr__(self, name: str) -> Any:
        # Asked for only where there is no such attribute.
        bridge = vars(self).get("_bridge")
        if bridge is not None and not name.startswith("_") and name in dir(bridge):
            raise AttributeError(f"interp.model has no {name!r}, its bridge has: interp.model.bridge.{name}")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @property
    def bridge(self) -> TransformerBridge:
        """The live model; yours to use and to change at any time.

        Raises
        ------
        InputError
            It was unloaded, or replaced by another one of its name.
        """
        if self._bridge is None:
            raise InputError(f"{self.name} was unloaded or replaced; load it again, or use interp.model")
        return self._bridge

    @property
    def tokens(self) -> Tokens:
        """The tokenizer as the bridge has it now, with the vocabulary and the context window of the model."""
        config: Any = self.bridge.cfg
        tokenizer: Any = self.bridge.tokenizer
        bos = bool(getattr(config, "default_prepend_bos", True))
        size = 0 if tokenizer is None else len(tokenizer)
        held = self._tokens
        if held is None or held.tokenizer is not tokenizer or (held.size, held.default_bos) != (size, bos):
            held = Tokens(
                tokenizer, self.geometry.d_vocab, self.geometry.n_ctx, bos, bidirectional=not self.geometry.causal
            )
            self._tokens = held
        return held

    @property
    def device(self) -> torch.device:
        """The device of the model's first parameter."""
        return next(self.hf_model.parameters()).device

    @property
    def dtype(self) -> str:
        """The dtype of the model's first parameter, without torch's prefix."""
        return str(next(self.hf_model.parameters()).dtype).removeprefix("torch.")

    @property
    def nbytes(self) -> int:
        """Bytes of weights and buffers, shared ones counted once."""
        held = {
            t.data_ptr(): t.numel() * t.element_size() for t in (*self.hf_model.parameters(), *self.hf_model.buffers())
        }
        return sum(held.values())

    @property
    def hf_model(self) -> nn.Module:
        """The model that the bridge wraps."""
        return self.bridge.original_model

    @property
    def family(self) -> str:
        """What Hugging Face calls the model's architecture (``"llama"``), ``"native"`` for transformer-lens' own."""
        hf: Any = self.hf_model
        return "native" if isinstance(hf, NativeModel) else getattr(getattr(hf, "config", None), "model_type", "")

    def modules(self) -> list[tuple[str, nn.Module]]:
        """Return every module of the bridge and of the model inside it, once, with its name."""
        held = dict.fromkeys(id(module) for module in self.bridge.modules())
        inside = [(name, module) for name, module in self.hf_model.named_modules() if id(module) not in held]
        return [*self.bridge.named_modules(), *inside]

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Every name that `Run.activations` takes."""
        return tuple(self.bridge.hook_dict)

    def neurons(self, layer: int = 0) -> int:
        """Return how many neurons a layer's MLP has, read off its weights; 0 where it has none of that kind."""
        mlp: Any = getattr(self.bridge.blocks[layer], "mlp", None)
        out: Any = getattr(mlp, "out", None)
        if out is None:
            return 0
        width = getattr(getattr(out, "original_component", out), "in_features", None)  # of packed weights too
        return int(width or mlp.W_out.shape[0])

    def user_hooks(self) -> tuple[str, ...]:
        """Return the hooks on the model that neither transformer-lens nor interp put there, as ``module: function``."""
        if self._operation is not None:  # looked for when the command began
            return self._operation.user_hooks
        modules = self.modules()
        return self._user_hooks(modules, self._state(modules))

    def fingerprint(self) -> str:
        """Return the hash of all that a forward's result depends on (see `interp.engine.model.fingerprint`)."""
        return self._state(self.modules()).digest

    def _state(self, modules: Sequence[tuple[str, nn.Module]]) -> State:
        return inspect_state(modules, self.bridge.cfg, getattr(self.hf_model, "config", None))

    def _user_hooks(self, modules: Sequence[tuple[str, nn.Module]], state: State) -> tuple[str, ...]:
        # A replaced forward or a module of the user's own class does what a hook does.
        return (*(str(found) for found in hooks.foreign(modules)), *state.own_code)

    # -- one command's work --------------------------------------------------------------------------------------

    def operate(self, technique: str, arguments: Mapping[str, Any], body: Callable[[Operation], Value]) -> Value:
        """Call `body` under the lock with the account of one command; within another command, with that one's.

        A function rather than a context manager: an interrupt between a generator's ``yield`` and the ``with`` block
        would leave the lock taken and the account open.

        Raises
        ------
        OutOfMemory
            Memory ran out; no frame of ours keeps a tensor alive, and the model is as it was.
        """
        failure = ""
        with self.lock:
            if self._operation is not None:
                return body(self._operation)
            try:
                return hooks.interruptible(lambda: self._begun(technique, arguments, body))
            except (RuntimeError, MemoryError) as error:
                if isinstance(error, OutOfMemory) or not memory.is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)
                memory.empty_cache(self.device)
                failure = (
                    f"out of memory in {technique}: {memory.readable(memory.free_bytes(self.device))} is free on "
                    f"{self.device}; use a shorter prompt or fewer layers, or free some with %interp clear"
                )
            finally:
                self._operation = None
        # Raised outside the except block, so that the new error does not carry the old one's frames.
        raise OutOfMemory(failure)

    def _begun(self, technique: str, arguments: Mapping[str, Any], body: Callable[[Operation], Value]) -> Value:
        self._operation = self._account(technique, arguments)
        return body(self._operation)

    def _account(self, technique: str, arguments: Mapping[str, Any]) -> Operation:
        # Not in `operate`: the traceback of an error keeps its frame, and a list of modules in it all the weights.
        modules = self.modules()
        state = self._state(modules)
        operation = Operation(technique, arguments, state.digest, self._user_hooks(modules, state), state.random)
        if self.doubt:
            operation.notes.append(self.doubt)
        if state.random:
            operation.notes.append(
                "the model is in training mode with dropout: every run differs; model.bridge.eval() stops that"
            )
        return operation

    def operate_if_free(self, technique: str, body: Callable[[Operation], Value]) -> Value:
        """Call `body` as `operate` does, or refuse at once where another thread has the lock.

        Raises
        ------
        InputError
            The model is busy.
        """
        interrupts = hooks.Interrupts()
        taken = False
        interrupts.begin()
        try:
            taken = self.lock.acquire(blocking=False)
            if not taken:
                raise InputError(f"{self.name} is busy; try again when the cell has finished")
            interrupts.allowed = True
            return self.operate(technique, {}, body)
        finally:
            interrupts.allowed = False
            if taken:
                self.lock.release()
            interrupts.end()

    def finished(self, result: AnyResult, operation: Operation) -> AnyResult:
        """Return `result` with the provenance and the notes of `operation`."""
        g = operation
        provenance = Provenance(
            model=self.name,
            fingerprint=g.fingerprint,
            dtype=self.dtype,
            device=str(self.device),
            tokens=g.tokens,
            technique=g.technique,
            # Another result is named and not kept: it has a provenance of its own, and may come to hold this one.
            arguments={k: Own(type(v).__name__) if isinstance(v, Result) else v for k, v in g.arguments.items()},
            path=g.path,
            user_hooks=g.user_hooks,
            forwards=g.forwards,
            seconds=time.perf_counter() - g.started,
            versions=_versions(),
        )
        hooked = (f"{len(g.user_hooks)} hooks of yours were on the model; %interp status lists them",)
        return replace(
            result, provenance=provenance, notes=(*g.notes, *result.notes, *(hooked if g.user_hooks else ()))
        )

    def encode(self, prompt: Prompt) -> Encoded:
        """Return `prompt` as tokens, and note it in the current operation's account."""
        encoded = self.tokens.encode(prompt)
        if self._operation is not None:
            self._operation.tokens.append(list(encoded.ids))
            self._operation.notes.extend(encoded.notes)
        return encoded

    # -- activations ---------------------------------------------------------------------------------------------

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
        if operation.user_hooks:  # what the user's functions do is not in any key
            operation.path = "hooked: hooks of the user's own"
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
        prompt: str | Sequence[int] | Prompt,
        interventions: Sequence[Intervention] = (),
        *,
        bos: bool | None = None,
        truncate: bool = False,
    ) -> Run:
        """Run a prompt and return its logits and, lazily, its activations.

        Parameters
        ----------
        prompt
            A text, token ids, or a `Prompt`.
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
        >>> interp.model.run("The capital of France is").logits.shape  # doctest: +SKIP
        torch.Size([1, 6, 49152])
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
        self.store.clear()
        memory.empty_cache(device)

    def _key(self, ids: Sequence[int], state: str) -> tuple[Any, ...]:
        device = self.device
        autocast = (
            torch.is_autocast_enabled(device.type) and str(torch.get_autocast_dtype(device.type)),
            torch.get_float32_matmul_precision(),
        )
        attention = getattr(getattr(self.hf_model, "config", None), "_attn_implementation", None)
        return (state, self.dtype, str(device), attention, autocast, tuple(ids))

    def _compute(self, tokens: Encoded, sites: Sequence[str], operation: Operation) -> dict[str, Tensor]:
        if self.lacks_head and {LOGITS, LAST_LOGITS} & set(sites):
            raise InputError(
                f"the checkpoint of {self.name} holds no language-model head ({self.lacks_head}): "
                "it has no predictions; attention and activations work"
            )
        names = [site for site in sites if site not in {LOGITS, LAST_LOGITS}]
        points = {name: self._hook_point(name) for name in names}
        self._refuse_what_cannot_fit(len(tokens.ids), sites)
        held: dict[str, Tensor] = {}

        def keep(name: str) -> hooks.Hook:
            def hook(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                # A copy: modules further on may write in place, and a view would keep all heads' storage.
                held[name] = tensor.detach().clone()

            return hook

        logits = self._forward(
            [tokens.ids],
            {name: (point, keep(name)) for name, point in points.items()},
            last_only=LOGITS not in sites,
        )
        self.forwards += 1
        operation.forwards += 1
        operation.path = "forward" if operation.path == "store" else operation.path
        absent = [name for name in names if name not in held]
        if absent:
            raise InputError(f"{absent[0]} does not fire in {self.name}; this model has no such activation")
        # The last position's logits come with every forward and cost little: predict after attention runs nothing.
        if not self.lacks_head and not self._gates(names):
            held[LAST_LOGITS] = logits[:, -1].clone()
        if LOGITS in sites:
            held[LOGITS] = logits
        return held

    def forward(
        self,
        prompts: Sequence[Sequence[int]],
        functions: Mapping[str, hooks.Hook],
        *,
        last_only: bool = True,
        gradients: bool = False,
        past: Any = None,
    ) -> Tensor:
        """Run prompts of one length with functions on hooks, past the store.

        Parameters
        ----------
        prompts
            Token ids, ``[prompt][position]``.
        functions
            Hook name → ``(tensor, hook) -> tensor | None``.
        last_only
            Whether the last position's logits are enough.
        gradients
            Whether autograd records the run.
        past
            A Hugging Face cache of the keys and values of what stands before `prompts`; theirs are added to it.

        Returns
        -------
        Tensor
            Logits, ``[prompt, position or 1, d_vocab]``.
        """

        def once(operation: Operation) -> Tensor:
            points = {name: (self._hook_point(name), function) for name, function in functions.items()}
            logits = self._forward(prompts, points, last_only=last_only, gradients=gradients, past=past)
            self.forwards += 1
            operation.forwards += 1
            return logits[:, -1:] if last_only else logits

        return self.operate("forward", {}, once)

    def captured(self, tokens: Encoded, name: str, functions: Mapping[str, hooks.Hook]) -> Tensor:
        """Return one activation of a run with functions on hooks, as it goes on from there; past the store."""
        held: list[Tensor] = []
        own = functions.get(name)

        def keep(tensor: Tensor, hook: HookPoint) -> Tensor:
            changed = tensor if own is None else own(tensor, hook)
            held[:] = [changed.detach().clone()]
            return changed

        self.forward([tokens.ids], {**functions, name: keep})
        if not held:
            raise InputError(f"{name} does not fire in {self.name}; this model has no such activation")
        return held[0]

    def activations_of(self, ids: Sequence[int], sites: Sequence[str]) -> dict[str, Tensor]:
        """Return `activations` of token ids that are known to be good."""
        return self.activations(Encoded(tuple(ids), (), {}), sites)

    def on_step(self, done: int, total: int, said: str = "") -> None:
        """Tell whoever watches the current command how far it is, and what there is to be said of it so far."""
        if self._operation is not None:
            self._operation.on_step(done, total, said)

    def on_partial(self, make: Callable[[], Result]) -> None:
        """Offer what a command has so far to whoever watches it; `make` is called at once, or not at all."""
        if self._operation is not None and self._operation.on_partial is not None:
            self._operation.on_partial(make)

    @property
    def watched(self) -> bool:
        """Whether somebody wants to see what the current command has so far."""
        return self._operation is not None and self._operation.on_partial is not None

    def note(self, path: str, notes: Sequence[str] = ()) -> None:
        """Write how the current command ran, and what is worth knowing, into its account."""
        if self._operation is not None:
            self._operation.path = path
            self._operation.notes.extend(notes)

    def count(self, forwards: int) -> None:
        """Add forwards that were run without the bridge to the account."""
        self.forwards += forwards
        if self._operation is not None:
            self._operation.forwards += forwards

    @property
    def state(self) -> Hashable:
        """All that a forward of the current command depends on but its prompt; ``None`` outside of commands."""
        return None if self._operation is None else self._key((), self._operation.fingerprint)

    def recall(self, ids: Sequence[int], names: Sequence[str]) -> dict[str, Tensor] | None:
        """Return what `keep` stored under `names` for a plain run of `ids`; ``None`` where any of it is missing."""

        def look(operation: Operation) -> dict[str, Tensor] | None:
            if operation.user_hooks or operation.random:
                return None
            context = self._key(ids, operation.fingerprint)
            found = {name: self.store.get((*context, name)) for name in names}
            held = {name: tensor for name, tensor in found.items() if tensor is not None}
            return held if len(held) == len(found) else None

        return self.operate("run", {}, look)

    def keep(self, ids: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        """Store parts of a plain run of `ids` by name; they are not to be written to any more."""

        def put(operation: Operation) -> None:
            if not (operation.user_hooks or operation.random):
                for name, tensor in tensors.items():
                    self.store.put((*self._key(ids, operation.fingerprint), name), tensor)

        self.operate("run", {}, put)

    def _forward(
        self,
        ids: Sequence[Sequence[int]],
        captured: Mapping[str, tuple[HookPoint, hooks.Hook]],
        *,
        last_only: bool = False,
        gradients: bool = False,
        past: Any = None,
    ) -> Tensor:
        """Return logits, ``[prompt, position, d_vocab]``, run with hooks on; of the last position if `last_only`."""
        batch = torch.tensor([list(prompt) for prompt in ids], device=self.device)
        options: dict[str, Any] = {"logits_to_keep": 1} if last_only and self._keeps_logits else {}
        if past is not None:
            options |= {"past_key_values": past, "use_cache": True}
        gates = self._gates(list(captured))
        before = {gate: bool(getattr(self.bridge.cfg, gate, False)) for gate in gates}

        def switch(values: Mapping[str, bool]) -> None:
            for gate, value in values.items():
                getattr(self.bridge, f"set_{gate}")(value)

        def tidy() -> None:
            switch(before)
            # transformer-lens keeps each layer's last pattern in an attribute that nothing reads.
            for block in getattr(self.bridge, "blocks", ()):
                kept = vars(getattr(block, "attn", block))
                if isinstance(kept.get("_pattern"), Tensor):
                    kept["_pattern"] = None

        return hooks.run_hooked(
            list(captured.values()),
            lambda: self.bridge.forward(batch, return_type="logits", **options),
            before=lambda: switch(dict.fromkeys(gates, True)),
            after=tidy,
            gradients=gradients,
        )

    @cached_property
    def _keeps_logits(self) -> bool:
        return "logits_to_keep" in inspect.signature(self.hf_model.forward).parameters

    def _gates(self, names: Sequence[str]) -> list[str]:
        # By the point's own name: blocks.0.hook_q_input is another name of blocks.0.attn.hook_q_input.
        points = [str(self._hook_point(name).name) for name in names]
        return sorted({gate for name in points for suffix, gate in _GATES.items() if name.endswith(suffix)})

    def _hook_point(self, name: str) -> HookPoint:
        point = self.bridge.hook_dict.get(name)
        if point is not None:
            return point
        parts = name.split(".")
        if parts[0] == "blocks" and len(parts) > 1 and parts[1].isdigit() and int(parts[1]) >= self.geometry.n_layers:
            raise InputError(f"no layer {parts[1]}; layers are 0–{self.geometry.n_layers - 1}")
        raise InputError(f"{self.name} has no hook {name!r}{closest(name, self.hook_names)}")

    def _refuse_what_cannot_fit(self, length: int, sites: Sequence[str]) -> None:
        needed = self._bytes_of(length, sites)
        free = memory.free_bytes(self.device)
        if needed <= free:
            return
        fits = length
        while fits > 1 and self._bytes_of(fits, sites) > free:
            fits -= max(1, fits // 50)
        raise InputError(
            f"this needs {memory.readable(needed)} for {length} tokens and {memory.readable(free)} is free on "
            f"{self.device}; about {fits} tokens fit, or choose fewer layers"
        )

    def _bytes_of(self, length: int, sites: Sequence[str]) -> int:
        """Return the bytes of the captured sites at `length` tokens and of the largest layer's own work."""
        g = self.geometry
        per_site = {
            "hook_pattern": g.n_heads * length,
            "hook_attn_scores": g.n_heads * length,
            "hook_result": g.n_heads * g.d_model,
        }
        element = next(self.hf_model.parameters()).element_size()
        total = length * length * g.n_heads * 3  # scores, masked scores and weights of the layer being computed
        for site in sites:
            if site == LOGITS:
                total += length * g.d_vocab
            elif site != LAST_LOGITS:
                total += length * per_site.get(site.rpartition(".")[2], g.d_model)
        return total * element


def _geometry(bridge: TransformerBridge) -> Geometry:
    config: Any = bridge.cfg
    heads = int(config.n_heads)
    return Geometry(
        n_layers=int(config.n_layers),
        n_heads=heads,
        n_kv_heads=int(getattr(config, "n_key_value_heads", None) or heads),
        d_model=int(config.d_model),
        d_head=int(config.d_head),
        d_vocab=int(config.d_vocab),
        n_ctx=int(config.n_ctx),
        causal=getattr(config, "attention_dir", "causal") == "causal",
    )


@cache
def _versions() -> Mapping[str, str]:
    return {name: importlib.metadata.version(name) for name in ("interp", "torch", "transformers", "transformer-lens")}
