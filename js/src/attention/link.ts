import { type ReadonlySignal, signal } from "@preact/signals-core";
import type { Model } from "../afm/model";
import type { Rpc } from "../afm/rpc";
import { trait } from "../afm/traits";
import { watch } from "../ui/watch";
import type { Meta, Selected } from "./meta";

export interface Link {
  selected: ReadonlySignal<Selected>;
  /** The user chose something: show it now and tell the kernel. */
  choose(part: Partial<Selected>): void;
  /** A token in full. */
  full(position: number): Promise<string>;
}

/** The selection of this view, the kernel's at the other end. */
export function linked(rpc: Rpc, model: Model, meta: Meta, fail: (error: unknown) => void, ends: AbortSignal): Link {
  const { layers, heads, tokens } = meta;
  const selected = signal<Selected>({
    layer: layers[0] ?? 0,
    head: heads[0] ?? 0,
    query: null,
    key: null,
    position: null,
  });
  const incoming = trait<Partial<Selected> | null>(model, "selection", ends);

  const show = (part: Partial<Selected>) => {
    const next = { ...selected.peek(), ...part };
    const changed = `${Object.values(next)}` !== `${Object.values(selected.peek())}`;
    if (changed) selected.value = next;
    return changed;
  };
  /** Show what the kernel has selected; what this view does not hold leaves it as it is. */
  const follow = (given: Partial<Selected>) => {
    // While a choice made here is on its way, what comes in is older than it.
    if (rpc.busy("select")) return;
    const next: Partial<Selected> = {};
    if (layers.includes(given.layer as number)) next.layer = given.layer as number;
    if (heads.includes(given.head as number)) next.head = given.head as number;
    for (const name of ["query", "key", "position"] as const) {
      const at = given[name];
      if (at !== undefined) next[name] = at !== null && tokens[at] !== undefined ? at : null;
    }
    show(next);
  };
  watch(ends, () => follow(incoming.value ?? {}));
  return {
    selected,
    choose(part) {
      // The answer is what is selected now: Python may have had another idea.
      if (show(part)) rpc.latest("select", { ...selected.peek() }).then(({ data }) => follow(data), fail);
    },
    full: async (position) => (await rpc.latest("token", { position })).data.text as string,
  };
}
