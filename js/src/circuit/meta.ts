import { times } from "../draw/numbers";
import { bytes } from "../host/model";

/** The circuit as the kernel has it; numbers of its drawing travel as bytes beside it. */
export interface Graph {
  facts: string;
  about: Record<string, string>;
  nodes: string[];
  titles: string[];
  labels: Record<string, string>;
  readers: string[];
  rows: [name: string, y: number][];
  size: [width: number, height: number];
  counts: [nodes: number, edges: number, curves: number];
  /** Edges of the circuit; more than are drawn where it is very large. */
  total: number;
  opens: number;
  /** Where the scales of edges and of nodes end. */
  ends: [edge: number, node: number];
  meaning: string[];
  evidence: [lead: string, bold: string, muted: boolean][];
  notes: string[];
}

export interface Edge {
  writer: number;
  reader: string;
  score: number;
  /** How many edges the smallest circuit has that holds this one. */
  upto: number;
}

/** An edge as it is drawn, to one of the nodes that read it; a folded group joins several. */
export interface Curve {
  edges: number[];
  source: number;
  target: number;
  /** x, y, then six numbers for each cubic Bézier. */
  path: number[];
}

/** A node, or a folded group. */
export interface Pill {
  name: string;
  title: string;
  x: number;
  y: number;
  wide: number;
}

export interface Drawing {
  pills: Pill[];
  edges: Edge[];
  curves: Curve[];
}

const GRID = 8; // steps to a px, as the kernel sends them

/** The drawing out of its bytes: see the kernel's `_described`. */
export function unpack({ nodes, titles, readers, counts }: Graph, data: unknown): Drawing {
  const buffer = bytes(data).slice().buffer;
  const scores = new Float32Array(buffer, 0, counts[1]);
  const numbers = new Uint16Array(buffer, 4 * counts[1]);
  let at = 0;
  const take = (count: number) => {
    at += count;
    return [...numbers.subarray(at - count, at)];
  };
  const each = <T>(count: number, make: (three: [number, number, number], i: number) => T) =>
    times(count, (i) => make(take(3) as [number, number, number], i));
  const px = (value: number) => value / GRID;
  const pills = each(counts[0], ([x, y, wide], i) => ({
    name: nodes[i] ?? "",
    title: titles[i] ?? "",
    x: px(x),
    y: px(y),
    wide: px(wide),
  }));
  const edges = each(counts[1], ([writer, reader, upto], i) => ({
    writer,
    reader: readers[reader] ?? "",
    upto,
    score: scores[i] as number,
  }));
  const curves = times(counts[2], () => {
    const [source = 0, target = 0, joined = 0, numbers = 0] = take(4);
    return { source, target, edges: take(joined), path: take(numbers).map(px) };
  });
  return { pills, edges, curves };
}

/** A node as it is called in words. */
export function nameOf(node: string): string {
  return node.replace(/^(\d+)\.(\d+)$/, "L$1H$2").replace(/^(\d+)\.mlp$/, "MLP $1");
}

/** The input that a reader's name says: q, k, v, or none of its own. */
export const inputOf = (reader: string) => /\.([qkv])$/.exec(reader)?.[1] ?? "";
