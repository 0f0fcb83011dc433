import { HALF } from "../draw/graph";
import type { Curve, Drawing, Pill } from "./meta";

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

/** The pill under a point, the uppermost of those in `there`; −1 for none. */
export function pillAt(pills: Pill[], there: Iterable<number>, x: number, y: number): number {
  let found = -1;
  for (const i of there) {
    const pill = pills[i] as Pill;
    if (i > found && Math.abs(x - pill.x) <= pill.wide / 2 + 2 && Math.abs(y - pill.y) <= HALF + 2) found = i;
  }
  return found;
}
