import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { sequential, type Theme, type WeightTheme } from "../draw/colours";
import type { Heads } from "./heads";
import type { Link } from "./link";
import { type Direction, heldToken, type Meta } from "./meta";

/** What is under the pointer: it shows for a moment and tells the kernel nothing. */
export interface Pointer {
  cell?: [query: number, key: number];
  token?: number;
  head?: [layer: number, head: number];
}

/** One view: what all of its parts look at. */
export interface Viewer extends Link {
  meta: Meta;
  heads: Heads;
  theme: ReadonlySignal<WeightTheme>;
  ends: AbortSignal;
  sink: Signal<boolean>;
  direction: Signal<Direction>;
  pointer: Signal<Pointer>;
  /** The part of the matrix that is shown, in tokens. */
  shown: Signal<{ top: number; left: number; span: number }>;
  /** The token whose weights colour the text. */
  held: ReadonlySignal<number | null>;
  /** What full colour stands for, in units of the matrix' scale. */
  top: ReadonlySignal<number>;
}

export function viewer(
  link: Link,
  meta: Meta,
  heads: Heads,
  frameTheme: ReadonlySignal<Theme>,
  ends: AbortSignal,
): Viewer {
  const theme = computed(() => ({ ...frameTheme.value, table: sequential(frameTheme.value) }));
  const sink = signal(false);
  const direction = signal<Direction>("from");
  const pointer = signal<Pointer>({});
  // As the picture does, a view begins with what the last token looks at; whoever has let go of a token holds none.
  const begun = signal(false);
  const held = computed(() => {
    const { token, cell } = pointer.value;
    const chosen = heldToken(link.selected.value, direction.value);
    const last = begun.value ? null : meta.tokens.length - 1;
    return token ?? cell?.[direction.value === "from" ? 0 : 1] ?? chosen ?? last;
  });
  const choose: Link["choose"] = (part) => {
    if ("position" in part) begun.value = true;
    link.choose(part);
  };
  const top = computed(() => {
    const { values, side } = heads.current.value;
    const rest = (most: number, value: number, at: number) => (at % side && value > most ? value : most);
    return (sink.value && values.reduce(rest, 0)) || 1;
  });
  const shown = signal({ top: 0, left: 0, span: meta.tokens.length });
  return { ...link, choose, meta, heads, theme, ends, sink, direction, pointer, shown, held, top };
}

/** The token at `position` with its number, as the footer and the captions write it. */
export const tokenName = ({ meta }: Viewer, position: number) => `${meta.tokens[position]} (${position})`;
