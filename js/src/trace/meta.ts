import { trace } from "../../../src/interp/views/kit/palette.json";
import { times } from "../draw/numbers";
import { bytes } from "../host/model";

/** The attribution graph as the kernel has it; numbers of its drawing travel as bytes beside it. */
export interface Graph {
  facts: string;
  about: Record<string, string>;
  tokens: string[];
  names: string[];
  titles: string[];
  called: string[];
  labels: Record<string, string>;
  rows: [name: string, y: number][];
  axis: [token: string, x: number][];
  size: [width: number, height: number, foot: number];
  counts: [nodes: number, edges: number];
  /** Edges of the graph; more than are drawn where it is very large. */
  total: number;
  opens: number;
  /** Where the scales of edges (shares of the influence) and of nodes (effects) end. */
  ends: [edge: number, node: number];
  meaning: string[];
  key: [kind: string, words: string][];
  scores: [name: string, value: string, said: string][];
  features: string[][];
  /** Of the most influential features. */
  caption: string;
  measured: [caption: string, width: number, height: number, body: string][];
  notes: string[];
}

export interface Node {
  name: string;
  title: string;
  called: string;
  kind: number;
  x: number;
  y: number;
  wide: number;
  /** −1 for embeddings. */
  layer: number;
  position: number;
  /** With how many edges it is shown. */
  first: number;
  /** Where its title stands, and up to how many edges there is room for it. */
  side: number;
  until: number;
  activation: number;
  influence: number;
  effect: number;
}

export interface Edge {
  source: number;
  target: number;
  weight: number;
  share: number;
  /** x, y, then six numbers of a cubic Bézier. */
  path: number[];
}

export interface Drawing {
  nodes: Node[];
  edges: Edge[];
}

export const [EMBEDDING, FEATURE, ERROR, LOGIT, GROUP] = [0, 1, 2, 3, 4];
const GRID = 8; // steps to a px, as the kernel sends them

/** Half of how high a node is. */
export const reach = ({ kind }: Node) => (kind === LOGIT || kind === GROUP ? trace.half : trace.mark);

/** The drawing out of its bytes: see the kernel's `_packed`. */
export function unpack({ names, titles, called, counts }: Graph, data: unknown): Drawing {
  const buffer = bytes(data).slice().buffer;
  const [count, joined] = counts;
  const values = new Float32Array(buffer, 0, 3 * count + 2 * joined);
  const whole = new Uint16Array(buffer, values.byteLength);
  const nodes = times(count, (i): Node => {
    const [activation = 0, influence = 0, effect = 0] = values.subarray(3 * i);
    const [x = 0, y = 0, wide = 0, kind = 0, above = 0, position = 0, first = 0, side = 0, until = 0] = whole.subarray(
      9 * i,
    );
    return {
      name: names[i] ?? "",
      title: titles[i] ?? "",
      called: called[i] ?? "",
      kind,
      x: x / GRID,
      y: y / GRID,
      wide: wide / GRID,
      layer: above - 1,
      position,
      first,
      side,
      until,
      activation,
      influence,
      effect,
    };
  });
  const edges = times(joined, (i): Edge => {
    const [weight = 0, share = 0] = values.subarray(3 * count + 2 * i);
    const [source = 0, target = 0] = whole.subarray(9 * count + 2 * i);
    return { source, target, weight, share, path: curve(nodes[source] as Node, nodes[target] as Node) };
  });
  return { nodes, edges };
}

/** From the top of one node to the foot of another. */
function curve(from: Node, to: Node): number[] {
  const [y0, y1] = [from.y - reach(from), to.y + reach(to)];
  const bend = trace.bend * (y0 - y1);
  return [from.x, y0, from.x, y0 - bend, to.x, y1 + bend, to.x, y1];
}
