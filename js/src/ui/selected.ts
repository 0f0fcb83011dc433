import { type ReadonlySignal, signal } from "@preact/signals-core";
import type { Message } from "../host/model";
import { trait } from "../host/traits";
import type { Mounted } from "./mount";
import { watch } from "./watch";

export interface Selecting<S> {
  selected: ReadonlySignal<S>;
  /** Show `part` now and send the kernel `message`; nothing is sent where nothing changes. */
  choose(part: Partial<S>, message?: Message): void;
}

/**
 * The selection of one view, the kernel's at the other end. `accept` says what of the kernel's a view shows; it may be of
 * another model, or of what this view has not.
 */
export function selecting<S extends object>(
  { model, rpc, ends, fail }: Pick<Mounted, "model" | "rpc" | "ends" | "fail">,
  initial: S,
  accept: (given: Message) => Partial<S>,
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
    if (!rpc.busy("select")) show(accept(given));
  };
  const incoming = trait<Message | null>(model, "selection", ends);
  watch(ends, () => follow(incoming.value ?? {}));
  return {
    selected,
    choose(part, message = part as Message) {
      // The answer is what is selected now: Python may have had another idea.
      if (show(part)) rpc.latest("select", message).then(({ data }) => follow(data), fail);
    },
  };
}
