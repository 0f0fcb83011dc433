import { circuit } from "../../../src/interp/views/kit/palette.json";
import { lifted } from "./colours";

/** Graphs of nodes in rows and curves between them, whatever they stand for. */
export interface Ends {
  source: number;
  target: number;
}

export interface Spot {
  x: number;
  y: number;
}

export const HALF = circuit.half; // of a pill's height, in px
const NEAR = 5; // px from a curve that still points at it

/** The step in whose colour and width an edge is drawn; NaN where it has no number. */
export function step(score: number, end: number): number {
  const size = Math.round(circuit.steps * lifted(Math.abs(score) / end));
  return Math.sign(score || 1) * Math.max(circuit.faintest, size) + 0 * score;
}

export const width = (level: number) =>
  circuit.thinnest + (circuit.widest - circuit.thinnest) * (Math.abs(level) / circuit.steps) ** circuit.growth;

/** Indices of the edges on a way through a node: below it all that lead there, above it all that lead on. */
export function through(curves: Ends[], node: number): Set<number> {
  const found = new Set<number>();
  const ends = [
    ["source", "target"],
    ["target", "source"],
  ] as const;
  for (const [from, to] of ends) {
    const by = new Map<number, number[]>();
    curves.forEach((curve, i) => {
      by.set(curve[from], [...(by.get(curve[from]) ?? []), i]);
    });
    const seen = new Set([node]);
    for (const one of seen) {
      for (const i of by.get(one) ?? []) {
        found.add(i);
        seen.add((curves[i] as Ends)[to]);
      }
    }
  }
  return found;
}

/** The curve that is nearest to a point, if it is near enough; `scale` is px of the screen to one of the drawing. */
export function curveAt(curves: { path: number[] }[], x: number, y: number, scale: number): number {
  let [best, least] = [-1, NEAR / scale];
  const reach = least;
  curves.forEach(({ path }, index) => {
    let [x0, y0] = path as [number, number];
    for (let i = 2; i < path.length; i += 6) {
      const [x1, y1, x2, y2, x3, y3] = path.slice(i, i + 6) as [number, number, number, number, number, number];
      if (
        y <= Math.max(y0, y3) + reach &&
        y >= Math.min(y0, y3) - reach &&
        x <= Math.max(x0, x1, x2, x3) + reach &&
        x >= Math.min(x0, x1, x2, x3) - reach
      ) {
        for (let t = 0; t < 1; t += 1 / 32) {
          const [s, u] = [1 - t, 3 * t * (1 - t)];
          const dx = s * s * s * x0 + u * s * x1 + u * t * x2 + t * t * t * x3 - x;
          const dy = s * s * s * y0 + u * s * y1 + u * t * y2 + t * t * t * y3 - y;
          const distance = Math.hypot(dx, dy);
          if (distance < least) [best, least] = [index, distance];
        }
      }
      [x0, y0] = [x3, y3];
    }
  });
  return best;
}

/** The node that an arrow key leads to: in the row above or below the nearest, in the same row the next. */
export function neighbour(nodes: Spot[], there: number[], from: number, rows: number, columns: number): number {
  const { x, y } = nodes[from] as Spot;
  const cost = (i: number) => {
    const node = nodes[i] as Spot;
    const [dx, dy] = [node.x - x, node.y - y];
    if (columns) return Math.abs(dy) <= HALF && dx * columns > 0 ? Math.abs(dx) : Number.POSITIVE_INFINITY;
    return dy * rows > HALF / 2 ? 4 * Math.abs(dy) + Math.abs(dx) : Number.POSITIVE_INFINITY;
  };
  return there.reduce(
    (best, i) => (cost(i) < (best === from ? Number.POSITIVE_INFINITY : cost(best)) ? i : best),
    from,
  );
}
