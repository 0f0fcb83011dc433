import { type Curve, type Drawing, HALF, type Pill } from "./meta";

const NEAR = 5; // px from a curve that still points at it

/** A curve with its score where only the first edges are shown. */
export interface Shown extends Curve {
  score: number;
}

/** What is drawn where the first `count` edges are shown. */
export function shown({ curves, edges }: Drawing, count: number): Shown[] {
  const found: Shown[] = [];
  for (const curve of curves) {
    const held = curve.edges.filter((edge) => edge < count);
    if (held.length)
      found.push({ ...curve, edges: held, score: held.reduce((sum, edge) => sum + (edges[edge]?.score ?? 0), 0) });
  }
  return found;
}

/** What each pill writes along the curves: an edge that several heads read counts once. */
export function totals({ edges }: Drawing, curves: Shown[]): Map<number, number> {
  const once = new Map<number, Set<number>>();
  for (const { source, edges } of curves) {
    const held = once.get(source) ?? new Set();
    for (const edge of edges) held.add(edge);
    once.set(source, held);
  }
  const score = (edge: number) => edges[edge]?.score || 0;
  return new Map([...once].map(([source, held]) => [source, [...held].reduce((sum, edge) => sum + score(edge), 0)]));
}

/** Indices of the curves on a way through a pill: below it all that lead there, above it all that lead on. */
export function through(curves: Shown[], pill: number): Set<number> {
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
    const seen = new Set([pill]);
    for (const node of seen) {
      for (const i of by.get(node) ?? []) {
        found.add(i);
        seen.add((curves[i] as Shown)[to]);
      }
    }
  }
  return found;
}

/** The pill under a point, the uppermost of those in `there`; −1 for none. */
export function pillAt(pills: Pill[], there: Iterable<number>, x: number, y: number): number {
  let found = -1;
  for (const i of there) {
    const pill = pills[i] as Pill;
    if (i > found && Math.abs(x - pill.x) <= pill.wide / 2 + 2 && Math.abs(y - pill.y) <= HALF + 2) found = i;
  }
  return found;
}

/** The curve that is nearest to a point, if it is near enough; `scale` is px of the screen to one of the drawing. */
export function curveAt(curves: Shown[], x: number, y: number, scale: number): number {
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

/** The pill that an arrow key leads to: in the row above or below the nearest, in the same row the next. */
export function neighbour(pills: Pill[], there: number[], from: number, rows: number, columns: number): number {
  const { x, y } = pills[from] as Pill;
  const cost = (i: number) => {
    const pill = pills[i] as Pill;
    const [dx, dy] = [pill.x - x, pill.y - y];
    if (columns) return Math.abs(dy) <= HALF && dx * columns > 0 ? Math.abs(dx) : Number.POSITIVE_INFINITY;
    return dy * rows > HALF / 2 ? 4 * Math.abs(dy) + Math.abs(dx) : Number.POSITIVE_INFINITY;
  };
  return there.reduce(
    (best, i) => (cost(i) < (best === from ? Number.POSITIVE_INFINITY : cost(best)) ? i : best),
    from,
  );
}
