import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import type { Theme } from "../draw/colours";
import { through } from "../draw/graph";
import { trait } from "../host/traits";
import type { Grouping, Groups } from "../ui/groups";
import type { Mounted } from "../ui/mount";
import { selecting } from "../ui/selected";
import { type Shown, shown, totals } from "./graph";
import { type Drawing, type Graph, nameOf, unpack } from "./meta";

/** What is under the pointer: it shows for a moment and tells the kernel nothing. */
export interface Pointer {
  pill?: number;
  curve?: number;
}

/** One view: what all of its parts look at. */
export interface Viewer extends Grouping {
  graph: ReadonlySignal<Graph>;
  /** How many edges are asked for, and how many are shown: those that only together make a way come together. */
  asked: Signal<number>;
  count: ReadonlySignal<number>;
  drawing: ReadonlySignal<Drawing>;
  curves: ReadonlySignal<Shown[]>;
  /** The pills that are shown, and what each writes. */
  there: ReadonlySignal<Set<number>>;
  totals: ReadonlySignal<Map<number, number>>;
  pointer: Signal<Pointer>;
  /** The chosen pill's index, −1 for none. */
  chosen: ReadonlySignal<number>;
  choose(pill: number): void;
  /** The curves that are lit; undefined where all are. */
  lit: ReadonlySignal<Set<number> | undefined>;
  theme: ReadonlySignal<Theme>;
}

interface Selected {
  layer: number | null;
  head: number | null;
}

export function viewer(mounted: Mounted, theme: ReadonlySignal<Theme>): Viewer {
  const { model, ends } = mounted;
  const graph = trait<Graph>(model, "graph", ends);
  const groups = trait<Groups>(model, "groups", ends);
  const asked = signal(graph.peek().opens);
  const drawing = computed(() => unpack(graph.value, model.get("drawing")));
  const count = computed(() => drawing.value.edges[asked.value - 1]?.upto ?? 0);
  const curves = computed(() => shown(drawing.value, count.value));
  const there = computed(() => new Set(curves.value.flatMap(({ source, target }) => [source, target])));
  const pointer = signal<Pointer>({});
  // What is no head is nothing that other views could follow: it is chosen here while the selection is what it made of it.
  const own = signal<(Selected & { name: string }) | undefined>(undefined);

  const link = selecting<Selected>(
    mounted,
    { layer: null, head: null },
    ({ layer = null, head = null }) => ({ layer, head }) as Selected,
  );
  const chosen = computed(() => {
    const { layer, head } = link.selected.value;
    const mine = own.value?.layer === layer && own.value.head === head;
    const name = mine ? (own.value?.name ?? "") : head === null ? "" : `${layer}.${head}`;
    const { pills } = drawing.value;
    const at = pills.findIndex((pill) => pill.name === name);
    const group = pills.findIndex((pill) => groups.value[pill.name]?.nodes.includes(name));
    return [group, at].find((i) => there.value.has(i)) ?? -1;
  });
  return {
    ...mounted,
    graph,
    groups,
    asked,
    count,
    drawing,
    curves,
    there,
    totals: computed(() => totals(drawing.value, curves.value)),
    pointer,
    marked: signal<ReadonlySet<string>>(new Set()),
    chosen,
    fold(name, folded) {
      mounted.rpc.request("fold", { name, folded: folded ? 1 : 0 }).catch(mounted.fail);
    },
    choose(pill) {
      const { name = "" } = drawing.peek().pills[pill] ?? {};
      const [layer = null, head = null] = groups.peek()[name] ? [] : (partsOf(name) ?? []);
      const part = { layer, head };
      own.value = name ? { ...part, name } : undefined;
      link.choose(part);
    },
    lit: computed(() => {
      const { pill, curve } = pointer.value;
      if (curve !== undefined) return new Set([curve]);
      if (pill !== undefined) return through(curves.value, pill);
      if (chosen.value < 0) return undefined;
      return new Set([...curves.value.keys()].filter((i) => touches(curves.value[i] as Shown, chosen.value)));
    }),
    theme,
  };
}

const touches = ({ source, target }: Shown, pill: number) => source === pill || target === pill;

/** A node's layer and, of a head, its number. */
export function partsOf(node: string): [layer: number, head: number | null] | undefined {
  const [, layer, part = ""] = /^(\d+)\.(\d+|mlp)$/.exec(node) ?? [];
  return layer === undefined ? undefined : [Number(layer), part === "mlp" ? null : Number(part)];
}

/** A pill as it is called in words, with what its head is known to do. */
export function named({ graph, groups }: Viewer, name: string): string {
  return groups.value[name] ? name : [nameOf(name), graph.value.labels[name]].filter(Boolean).join(" ");
}
