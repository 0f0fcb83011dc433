import type { ReadonlySignal } from "@preact/signals-core";
import type { Message } from "../host/model";
import type { Mounted } from "../ui/mount";
import { selecting } from "../ui/selected";
import type { Meta, Selected } from "./meta";

export interface Link {
  selected: ReadonlySignal<Selected>;
  /** The user chose something: show it now and tell the kernel. */
  choose(part: Partial<Selected>): void;
  /** A token in full. */
  full(position: number): Promise<string>;
}

/** The selection of this view, the kernel's at the other end. */
export function linked(mounted: Mounted, meta: Meta): Link {
  const { rpc } = mounted;
  const { layers, heads, tokens } = meta;
  const initial = { layer: layers[0] ?? 0, head: heads[0] ?? 0, query: null, key: null, position: null };
  /** What this view does not hold leaves it as it is. */
  const accept = (given: Message) => {
    const next: Partial<Selected> = {};
    if (layers.includes(given.layer as number)) next.layer = given.layer as number;
    if (heads.includes(given.head as number)) next.head = given.head as number;
    for (const name of ["query", "key", "position"] as const) {
      const at = given[name] as number | null | undefined;
      if (at !== undefined) next[name] = at !== null && tokens[at] !== undefined ? at : null;
    }
    return next;
  };
  const { selected, choose } = selecting<Selected>(mounted, initial, accept);
  return {
    selected,
    choose: (part) => choose(part, { ...selected.peek(), ...part }),
    full: async (position) => (await rpc.latest("token", { position })).data.text as string,
  };
}
