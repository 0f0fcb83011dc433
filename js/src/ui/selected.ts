import { type ReadonlySignal, signal } from "@preact/signals-core";
import type { Message } from "../afm/model";
import { trait } from "../afm/traits";
import type { Mounted } from "./mount";
import { watch } from "./watch";

export interface Selecting<S> {
  selected: ReadonlySignal<S>;
  /** Show `part` now and tell the kernel `told`; nothing is told where nothing changes. */
  choose(part: Partial<S>, told?: Message): void;
}

/**
 * The selection of one view, the kernel's at the other end. `held` says what of the kernel's a view shows; it may be of
 * another model, or of what this view has not.
 */
export function selecting<S extends object>(
  { model, rpc, ends, fail }: Pick<Mounted, "model" | "rpc" | "ends" | "fail">,
  initial: S,
  held: (given: Message) => Partial<S>,
): Selecting<S> {
  const selected = signal(initial);
  const show = (part: Partial<S>) => {
    const next = { ...selected.peek(), ...part };
    const changed = `${Object.values(next)}` !== `${Object.values(selected.peek())}`;
    if (changed) selected.value = next;
    return changed;
  };
  const follow = (given: Message) => {
    // While a choice made here is on its way, what comes in is older than it.
    if (!rpc.busy("select")) show(held(given));
  };
  const incoming = trait<Message | null>(model, "selection", ends);
  watch(ends, () => follow(incoming.value ?? {}));
  return {
    selected,
    choose(part, told = part as Message) {
      // The answer is what is selected now: Python may have had another idea.
      if (show(part)) rpc.latest("select", told).then(({ data }) => follow(data), fail);
    },
  };
}
