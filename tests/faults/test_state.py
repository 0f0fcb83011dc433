"""Rows 31–33: the user's own hooks, edits of the model between two cells, and a model that is replaced or gone."""

from __future__ import annotations

import copy
import functools
import gc
import sys
import weakref
from typing import Any

import pytest
import torch

from faults import harness
from interp.errors import InputError
from interp.interface.session import session
from sampled import in_turn

each_bodied = pytest.mark.parametrize("name", harness.bodied())
# Under hooks of the user's own, replaced forwards or autocast; what has no way with hooks is refused in one line there.
each_hooked = pytest.mark.parametrize("name", [name for name in harness.bodied() if name not in harness.UNHOOKED])
each_family = pytest.mark.parametrize("family", harness.FAMILIES)


@pytest.fixture
def own(folder, clean_session):
    """Return ``own(family)``: a model that this test may change as it likes."""

    def of(family="gpt2", **options):
        return clean_session.load(folder(family), **options)

    return of


def cell_of(name, family, door, shell):
    return harness.worked(harness.ask(door, shell, harness.valid(name, family)))


def status(shell):
    table = harness.worked(harness.ask("magic", shell, "%interp status"))
    return table.text()


# -- row 31 ------------------------------------------------------------------------------------------------------------


def scaled(tensor, hook=None):  # noqa: ARG001
    return tensor * 3.0


def scaled_output(module, arguments, output):  # noqa: ARG001
    first = output[0] if isinstance(output, tuple) else output
    return (first * 3.0, *output[1:]) if isinstance(output, tuple) else first * 3.0


def first_block(model):
    return next(m for n, m in model.hf_model.named_modules() if n.endswith(("h.0", "layers.0", "layer.0")))


def by_add_hook(model):
    model.bridge.add_hook("blocks.0.hook_resid_pre", scaled)
    return lambda: model.bridge.reset_hooks(including_permanent=True)


def by_permanent_hook(model):
    point = model.bridge.hook_dict["blocks.0.hook_resid_pre"]
    handle = point.add_hook(scaled, is_permanent=True)

    def remove():
        handle.hook.remove()
        point.fwd_hooks.remove(handle)

    return remove


def by_partial(model):
    point = model.bridge.hook_dict["blocks.0.hook_resid_pre"]
    handle = point.add_hook(functools.partial(scaled))

    def remove():
        handle.hook.remove()
        point.fwd_hooks.remove(handle)

    return remove


def by_torch_hook(model):
    return first_block(model).register_forward_hook(scaled_output).remove


def by_torch_pre_hook(model):
    def other_token(module, arguments):  # noqa: ARG001
        return (torch.full_like(arguments[0], 9), *arguments[1:])

    module = next(m for m in model.hf_model.modules() if type(m) is torch.nn.Embedding)
    return module.register_forward_pre_hook(other_token).remove


def by_global_hook(model):  # noqa: ARG001
    def each(module, arguments, output):  # noqa: ARG001
        return output * 3.0 if isinstance(module, torch.nn.Embedding) else None

    return torch.nn.modules.module.register_module_forward_hook(each).remove


HOOKS = [by_add_hook, by_permanent_hook, by_partial, by_torch_hook, by_torch_pre_hook, by_global_hook]


@each_family
def test_row_31_no_hook_of_the_user_is_seen_where_there_is_none(family, shell, lend):
    model = lend(family)
    assert model.user_hooks() == ()
    for name in harness.bodied(family):
        assert cell_of(name, family, "magic", shell).provenance.user_hooks == ()
    assert "your hooks" in status(shell)
    assert "none" in status(shell)


@pytest.mark.parametrize("hook", HOOKS)
@each_family
def test_row_31_a_hook_of_the_users_own(family, hook, shell, own):
    model = own(family)
    if hook is by_add_hook and family == "bert":
        pytest.skip("reset_hooks takes BERT's own wiring away too")
    unhooked = [name for name in harness.bodied(family) if name in harness.UNHOOKED]
    others = [name for name in harness.bodied(family) if name not in unhooked]
    names = in_turn(others, HOOKS.index(hook) + harness.FAMILIES.index(family))
    clean = {name: cell_of(name, family, "magic", shell) for name in names}
    logits, baseline = harness.forward(model), harness.census(model)
    entries = model.store.ledger().entries
    model.store.clear()
    computed = {name: cell_of(name, family, "magic", shell).provenance.forwards for name in clean}
    model.store.clear()
    for name in clean:
        cell_of(name, family, "magic", shell)
    remove = hook(model)
    try:
        assert not torch.equal(harness.forward(model), logits), "this hook changes nothing: it tests nothing"
        for name, before in clean.items():
            for door in harness.DOORS:
                hooked = cell_of(name, family, door, shell)
                assert len(hooked.provenance.user_hooks) == 1
                assert any("hooks of yours" in note or "hook of yours" in note for note in hooked.notes)
                if before.provenance.path != "store":
                    assert hooked.provenance.forwards >= computed[name], f"an answer of {name} came from the store"
                    assert hooked.provenance.path.startswith("hooked")
                    assert harness.answer(hooked) != harness.answer(before)
        for name in unhooked:
            for door in harness.DOORS:
                harness.refused(harness.ask(door, shell, harness.valid(name, family)), "hooks of the user's own")
        assert model.store.ledger().entries == entries, "a hooked answer went into the store"
        assert hooked.provenance.user_hooks[0] in status(shell)
        with harness.unharmed(model, shell):
            harness.refused(harness.ask("magic", shell, harness.valid(harness.bodied()[0], family, text="a " * 100)))
    finally:
        remove()
    assert harness.census(model) == baseline
    assert model.user_hooks() == ()
    for name, before in clean.items():
        after = cell_of(name, family, "magic", shell)
        assert harness.answer(after) == harness.answer(before)
        assert after.provenance.user_hooks == ()
        assert after.provenance.forwards == 0
    assert torch.equal(harness.forward(model), logits)


@each_hooked
def test_row_31_our_own_hooks_leave_the_users_on(name, shell, own):
    model = own("llama")
    seen = []
    handle = first_block(model).register_forward_hook(lambda *_: seen.append(1))
    model.bridge.add_hook("blocks.1.attn.hook_pattern", lambda tensor, hook: seen.append(2))  # noqa: ARG005
    hooked = harness.census(model)
    cell_of(name, "llama", "magic", shell)
    assert harness.census(model) == hooked
    seen.clear()
    harness.forward(model)
    assert seen == [1, 2]
    handle.remove()


# -- row 32 ------------------------------------------------------------------------------------------------------------


def weight(model):
    return next(p for n, p in model.hf_model.named_parameters() if "embed" in n or "wte" in n)


def by_data(model):
    weight(model).data.mul_(1.5)


def by_numpy(model):
    weight(model).detach().numpy()[:] *= 1.5


def by_no_grad(model):
    with torch.no_grad():
        weight(model)[:, 0] += 1.0


def by_bridge(model):
    with torch.no_grad():
        model.bridge.blocks[1].ln1.weight.mul_(-1.0)


def by_state_dict(model):
    state = {name: tensor * 1.25 for name, tensor in model.hf_model.state_dict().items()}
    model.hf_model.load_state_dict(state)


def by_new_parameter(model):
    for module in model.hf_model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.weight = torch.nn.Parameter(module.weight.detach() * 1.5)


def by_bfloat16(model):
    model.bridge.to(torch.bfloat16)


def by_double(model):
    model.hf_model.double()


def by_half_and_back(model):
    model.hf_model.half().float()


def by_compatibility_mode(model):
    model.bridge.enable_compatibility_mode(disable_warnings=True)


def by_centred_weights(model):
    model.bridge.process_weights()


def by_a_new_epsilon(model):
    for module in model.hf_model.modules():
        for attribute in ("eps", "variance_epsilon"):
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.5)


def by_optimiser(model):
    optimiser = torch.optim.SGD(model.hf_model.parameters(), lr=0.5)
    model.bridge.forward(torch.tensor([[1, 2, 3]]), return_type="logits").square().sum().backward()
    optimiser.step()
    model.hf_model.zero_grad()


def by_replaced_forward(model):
    module = next(m for m in model.hf_model.modules() if type(m) is torch.nn.Embedding)
    module.forward = lambda ids: 2 * torch.nn.Embedding.forward(module, ids)


EDITS = [
    by_data,
    by_numpy,
    by_no_grad,
    by_bridge,
    by_state_dict,
    by_new_parameter,
    by_bfloat16,
    by_double,
    by_half_and_back,
    by_compatibility_mode,
    by_centred_weights,
    by_a_new_epsilon,
    by_optimiser,
    by_replaced_forward,
]


def fresh_answer(model, name, family, shell):
    """Return the command's answer on the model as it stands, computed with an empty store."""
    model.store.clear()
    return harness.answer(cell_of(name, family, "python", shell))


@pytest.mark.parametrize("edit", EDITS)
@each_family
def test_row_32_an_edit_and_then_the_same_cell(family, edit, shell, own):
    model = own(family)
    others = [name for name in harness.bodied(family) if name != "predict"]
    names = ["predict", *in_turn(others, EDITS.index(edit) + harness.FAMILIES.index(family))]
    before = {name: cell_of(name, family, "magic", shell) for name in names}
    kept, logits = {name: harness.content(result) for name, result in before.items()}, harness.forward(model)
    try:
        edit(model)
    except (NotImplementedError, AttributeError) as error:
        pytest.skip(f"transformer-lens does not do this to {family}: {error}")
    moved = not torch.equal(harness.forward(model).float(), logits)
    after: dict[str, Any] = {}
    for name in before:
        outcome = harness.ask("magic", shell, harness.valid(name, family))
        if name in harness.UNHOOKED and outcome.error is not None:
            harness.refused(outcome, "without hooks, and here that cannot be")
            assert edit in {by_replaced_forward, by_a_new_epsilon}, edit.__name__
        else:
            after[name] = harness.worked(outcome)
    for name, result in after.items():
        assert harness.answer(result) == fresh_answer(model, name, family, shell), f"a stale answer of {name}"
        assert harness.content(before[name]) == kept[name], f"the earlier result of {name} has changed"
        if moved:
            p = result.provenance
            assert p.fingerprint != before[name].provenance.fingerprint or p.user_hooks
            assert p.forwards or before[name].provenance.path == "store" or p.path == "store"
    if moved:
        assert harness.answer(after["predict"]) != harness.answer(before["predict"])


def test_row_32_the_edits_change_the_answer(own):
    for edit in EDITS:
        model = own("llama", name=edit.__name__)
        logits = harness.forward(model)
        edit(model)
        moved = (harness.forward(model).float().softmax(-1) - logits.softmax(-1)).abs().max()
        assert moved > 0 or edit in {by_compatibility_mode, by_centred_weights}, edit.__name__


@each_hooked
def test_row_32_two_forwards_put_in_one_after_the_other(name, shell, own):
    """The second function may well get the address of the first, which is free by then."""
    model = own("gpt2")
    module = next(m for m in model.hf_model.modules() if type(m) is torch.nn.Embedding)
    plain = torch.nn.Embedding.forward
    answers = []
    for factor in (2.0, 3.0, 4.0, 5.0):
        module.forward = (lambda f: lambda ids: plain(module, ids) * f)(factor)
        answers.append(harness.answer(cell_of(name, "gpt2", "magic", shell)))
        assert answers[-1] == fresh_answer(model, name, "gpt2", shell)
        del module.forward
        gc.collect()


@each_bodied
def test_row_32_undone_edits_find_their_answer_again(name, shell, own):
    model = own("llama")
    before = cell_of(name, "llama", "magic", shell)
    saved = copy.deepcopy(weight(model).data)
    weight(model).data.mul_(2)
    cell_of(name, "llama", "magic", shell)
    weight(model).data.copy_(saved)
    after = cell_of(name, "llama", "magic", shell)
    assert harness.answer(after) == harness.answer(before)
    assert after.provenance.forwards == 0


@each_hooked
def test_row_32_autocast_has_its_own_answers(name, shell, own):
    model = own("llama")
    before = cell_of(name, "llama", "magic", shell)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cell_of(name, "llama", "magic", shell)
        assert inside.provenance.forwards >= before.provenance.forwards  # more where it now takes the hooked way
        assert harness.answer(inside) == fresh_answer(model, name, "llama", shell)
    after = cell_of(name, "llama", "magic", shell)
    assert harness.answer(after) == harness.answer(before)


def test_row_32_a_merged_adapter(shell, own):
    peft = pytest.importorskip("peft")
    model = own("llama")
    before = cell_of("predict", "llama", "magic", shell)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    attention = first_block(model).self_attn
    deltas = {}
    for name in ("q_proj", "v_proj"):
        linear = next(m for n, m in attention.named_modules() if n.endswith((name, f"{name}.original_component")))
        target = getattr(linear, "original_component", linear)
        wrapped = peft.tuners.lora.Linear(target, "default", config=config, r=2, lora_alpha=2, init_lora_weights=False)
        deltas[name] = wrapped
        wrapped.merge()
    after = cell_of("predict", "llama", "magic", shell)
    assert after.provenance.forwards == 1
    assert harness.answer(after) != harness.answer(before)
    assert harness.answer(after) == fresh_answer(model, "predict", "llama", shell)
    for wrapped in deltas.values():
        wrapped.unmerge()


@each_bodied
def test_row_32_a_live_result_of_an_edited_model_says_so(name, shell, own):
    model = own("gpt2")
    result = cell_of(name, "gpt2", "magic", shell)
    assert result._live.run(lambda live: live is model)
    weight(model).data.mul_(2)
    with pytest.raises(InputError, match="changed"):
        result._live.run(lambda live: live)
    run = model.run("Mary gave")
    weight(model).data.mul_(2)
    with pytest.raises(InputError, match="changed"):
        run.activations["blocks.0.hook_resid_pre"]


# -- row 33 ------------------------------------------------------------------------------------------------------------


def watched(model):
    """Return weak references to a model's weights, its bridge and its stored activations."""
    stored = list(model.store._held.values())
    return [
        weakref.ref(model.bridge),
        weakref.ref(model.hf_model),
        *(weakref.ref(p) for p in model.hf_model.parameters()),
        *(weakref.ref(t) for t in stored),
    ]


def alive(references):
    gc.collect()
    return [type(r()).__name__ for r in references if r() is not None]


UNLOADS = {
    "unload": "%interp unload",
    "unload by name": "%interp unload gpt2",
    "replace": "%interp load {folder}",
    "load beside it, then unload it": "%interp load {folder} --name other\n%interp unload gpt2",
}


@pytest.mark.parametrize("way", UNLOADS)
@each_bodied
def test_row_33_a_model_that_is_gone_is_freed(way, name, shell, folder):
    """Its LoadedModel is still in Out, its results are held, and the last errors are its own."""
    shell.user_ns["interp"] = __import__("interp")
    shell.run_cell(f"%interp load {folder('gpt2')}")
    assert "gpt2" in session.models
    shell.run_cell(harness.valid(name).source(out="kept"))
    shell.run_cell("held = interp.model")
    shell.run_cell(f"%%interp {name}\n{'a ' * 200}")
    for bad in ("'a ' * 200", "[5, 9999]", "''"):
        shell.run_cell(f"interp.{name.replace('-', '_')}({bad})")
        assert sys.last_type is InputError
    shell.run_cell("run = interp.model.run('Mary')")
    shell.run_cell("run.activations['blocks.0.hook_resid_pots']")
    assert sys.last_type is InputError
    gc.collect()
    held = watched(shell.user_ns["held"])
    assert len(alive(held)) == len(held)
    kept = shell.user_ns["kept"]
    before = harness.content(kept)
    for line in UNLOADS[way].format(folder=folder("gpt2")).splitlines():
        harness.worked(harness.ask("magic", shell, line))
    assert alive(held) == []
    assert harness.content(kept) == before
    assert "<div" in kept.html()
    with pytest.raises(InputError, match=r"run the cell again|load it"):
        kept._live.run(lambda model: model)
    gone = shell.user_ns["held"]
    assert "gpt2" in repr(gone)
    with pytest.raises(InputError, match="load"):
        gone.run("Mary")
    with pytest.raises(InputError, match="load"):
        shell.user_ns["run"].activations["blocks.0.hook_resid_pre"]


def test_row_33_what_the_user_holds_stays_the_users(shell, own):
    model = own("gpt2")
    bridge, logits = model.bridge, harness.forward(model)
    harness.worked(harness.ask("magic", shell, "%interp unload"))
    with torch.no_grad():
        again = bridge.forward(torch.tensor([[1, 2, 3, 4, 5, 6, 7]]), return_type="logits")
    assert torch.equal(again, logits)
    model = session.load(bridge)
    assert torch.equal(harness.forward(model), logits)


def test_row_33_the_same_bridge_loaded_again_is_not_taken_away(shell, own):
    bridge = own("gpt2").bridge
    first = session.load(bridge, name="mine")
    second = session.load(bridge, name="mine")
    assert first is not second
    cell_of("predict", "gpt2", "magic", shell)


def test_row_33_a_load_that_fails_leaves_the_model(shell, own, tmp_path):
    model = own("gpt2")
    with harness.unharmed(model, shell):
        harness.refused(harness.ask("magic", shell, f"%interp load {tmp_path} --name gpt2"), "config.json")
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
        harness.refused(harness.ask("magic", shell, f"%interp load {tmp_path} --name gpt2"), "safetensors")
    assert session.get() is model


def test_row_33_unload_names_what_is_current_now(shell, own):
    own("gpt2")
    own("llama")
    title = harness.worked(harness.ask("magic", shell, "%interp unload")).title
    assert "llama" in title
    assert "gpt2 is current" in title
    assert session.current == "gpt2"
    harness.worked(harness.ask("magic", shell, "%interp unload"))
    assert session.current is None
    harness.refused(harness.ask("magic", shell, "%interp unload"), "%interp load")
