import { signed } from "../draw/signed";
import { counted, type Piece, plural } from "../ui/words";
import { nameOf } from "./meta";
import { named, type Viewer } from "./view";

/** What is under the pointer, chosen, or else shown, in words and exact numbers. */
export function words(viewer: Viewer): Piece[] {
  const { pointer, chosen, drawing, curves, count, graph, totals } = viewer;
  const { edges, pills } = drawing.value;
  const { pill = chosen.value, curve = -1 } = pointer.value;
  const hovered = curves.value[curve];
  const title = (i: number) => nameOf(pills[i]?.name ?? "");
  if (hovered) {
    const [first] = hovered.edges;
    const reader = edges[first ?? 0]?.reader ?? "";
    const joined = hovered.edges.length > 1;
    return [
      ["", `${title(hovered.source)} → ${title(hovered.target)}`, true],
      joined ? [`${plural(hovered.edges.length, "edge")}, `] : [`into ${reader}`],
      ["score ", signed(hovered.score), true],
    ];
  }
  const held = pills[pill];
  if (held) {
    const of = (end: "source" | "target") =>
      new Set(curves.value.filter((c) => c[end] === pill).flatMap((c) => c.edges));
    const [reads, writes] = [of("target").size, of("source").size];
    const found: Piece[] = [["", named(viewer, held.name), true]];
    const { nodes } = viewer.groups.value[held.name] ?? {};
    if (nodes) found.push([plural(nodes.length, "node")]);
    if (reads) found.push([`reads ${plural(reads, "edge")}`]);
    if (writes) found.push([`writes ${plural(writes, "edge")}, together `, signed(totals.value.get(pill)), true]);
    return found;
  }
  const last = edges.slice(0, count.value);
  const least = last.reduce((low, { score }) => Math.min(low, Math.abs(score) || low), Number.POSITIVE_INFINITY);
  if (!last.length) return [["no edge is in this circuit"]];
  return [
    [`${counted(count.value)} of ${plural(graph.value.total, "edge")}, each `, `±${signed(least).slice(1)}`, true],
    ["or stronger"],
  ];
}
