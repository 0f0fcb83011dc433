import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import type { Theme } from "../draw/colours";
import { through } from "../draw/graph";
import { trait } from "../host/traits";
import type { Grouping, Groups } from "../ui/groups";
import type { Mounted } from "../ui/mount";
import { selecting } from "../ui/selected";
import { type Drawing, type Edge, type Graph, LOGIT, unpack } from "./meta";

/** What is under the pointer: it shows for a moment and tells the kernel nothing. */
export interface Pointer {
  node?: number;
  edge?: number;
}

/** One view: what all of its parts look at. */
export interface Viewer extends Grouping {
  graph: ReadonlySignal<Graph>;
  drawing: ReadonlySignal<Drawing>;
  /** How many edges are asked for. */
  asked: Signal<number>;
  /** The edges and the nodes that are shown. */
  edges: ReadonlySignal<Edge[]>;
  there: ReadonlySignal<number[]>;
  pointer: Signal<Pointer>;
  /** The chosen node's index, and the chosen edge's, −1 for none. */
  chosen: ReadonlySignal<number>;
  choose(node: number): void;
  edge: ReadonlySignal<number>;
  chooseEdge(edge: number): void;
  /** The names of the pinned nodes: what is on no way through one of them is dimmed. */
  pinned: Signal<ReadonlySet<string>>;
  pin(node: number): void;
  /** The edges that are lit; undefined where all are. */
  lit: ReadonlySignal<Set<number> | undefined>;
  theme: ReadonlySignal<Theme>;
}

interface Selected {
  layer: number | null;
  position: number | null;
}

export function viewer(mounted: Mounted, theme: ReadonlySignal<Theme>): Viewer {
  const { model, ends } = mounted;
  const graph = trait<Graph>(model, "graph", ends);
  const groups = trait<Groups>(model, "groups", ends);
  const drawing = computed(() => unpack(graph.value, model.get("drawing")));
  const asked = signal(graph.peek().opens);
  const edges = computed(() => drawing.value.edges.slice(0, asked.value));
  const there = computed(() =>
    [...drawing.value.nodes.keys()].filter((i) => (drawing.value.nodes[i]?.first ?? 0) <= edges.value.length),
  );
  const pointer = signal<Pointer>({});
  const pinned = signal<ReadonlySet<string>>(new Set());
  // Of a cell's nodes the selection knows only the cell: which of them is chosen here while it is what that made of it.
  const own = signal<(Selected & { name: string }) | undefined>(undefined);
  const held = signal<[string, string] | undefined>(undefined);
  const link = selecting<Selected>(mounted, { layer: null, position: null }, (given) => {
    const { layer = null, position = null, head = null } = given as unknown as Selected & { head?: number | null };
    // A head is another view's: its layer says nothing of nodes.
    return head === null ? { layer, position } : { position };
  });
  const at = (name: string) => {
    const { nodes } = drawing.value;
    const whole = nodes.findIndex((node) => groups.value[node.name]?.nodes.includes(name));
    return [whole, nodes.findIndex((node) => node.name === name)].find((i) => there.value.includes(i)) ?? -1;
  };
  const chosen = computed(() => {
    const { layer, position } = link.selected.value;
    const mine = own.value;
    if (mine && mine.layer === layer && mine.position === position) return at(mine.name);
    if (layer === null || position === null) return -1;
    const { nodes } = drawing.value;
    const influence = (i: number) => nodes[i]?.influence ?? -1;
    return there.value
      .filter((i) => nodes[i]?.layer === layer && nodes[i]?.position === position && nodes[i]?.kind !== LOGIT)
      .reduce((best, i) => (influence(i) > influence(best) ? i : best), -1);
  });
  const edge = computed(() => {
    const [source = -1, target = -1] = held.value?.map(at) ?? [];
    return drawing.value.edges.findIndex((one) => one.source === source && one.target === target);
  });
  const name = (i: number) => drawing.peek().nodes[i]?.name ?? "";
  return {
    ...mounted,
    graph,
    groups,
    drawing,
    asked,
    edges,
    there,
    pointer,
    pinned,
    marked: signal<ReadonlySet<string>>(new Set()),
    chosen,
    edge,
    theme,
    fold(group, folded) {
      mounted.rpc.request("fold", { name: group, folded: folded ? 1 : 0 }).catch(mounted.fail);
    },
    choose(i) {
      held.value = undefined;
      const node = drawing.peek().nodes[i];
      const cell = node && !groups.peek()[node.name] ? node : undefined;
      const inside = cell && cell.layer >= 0 && cell.kind !== LOGIT;
      const part = { layer: inside ? cell.layer : null, position: cell?.position ?? null };
      own.value = node ? { ...part, name: node.name } : undefined;
      link.choose(part, { ...part, head: null });
    },
    chooseEdge(i) {
      const one = drawing.peek().edges[i];
      // One that is not drawn yet is drawn then.
      asked.value = Math.max(asked.peek(), i + 1);
      held.value = one && [name(one.source), name(one.target)];
    },
    pin(i) {
      const next = new Set(pinned.peek());
      if (!next.delete(name(i)) && name(i)) next.add(name(i));
      pinned.value = next;
    },
    lit: computed(() => {
      const touching = (i: number) =>
        new Set([...edges.value.keys()].filter((n) => [edges.value[n]?.source, edges.value[n]?.target].includes(i)));
      const { node, edge: over = edge.value } = pointer.value;
      if (node !== undefined) return touching(node);
      if (over >= 0) return new Set([over]);
      const pins = [...pinned.value].map(at).filter((i) => i >= 0);
      if (pins.length) return new Set(pins.flatMap((i) => [...through(edges.value, i)]));
      return chosen.value < 0 ? undefined : touching(chosen.value);
    }),
  };
}
