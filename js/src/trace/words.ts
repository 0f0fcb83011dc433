import { signed } from "../draw/signed";
import { counted, type Piece, plural } from "../ui/words";
import { LOGIT } from "./meta";
import type { Viewer } from "./view";

/** A share of 0 to 1 as it is written. */
export const percent = (share: number) => `${Math.round(100 * share)} %`;

/** What is under the pointer, chosen, or else shown, in words and exact numbers. */
export function words(viewer: Viewer): Piece[] {
  const { pointer, chosen, edge, drawing, edges, there, graph } = viewer;
  const { nodes } = drawing.value;
  const { node: over, edge: beneath } = pointer.value;
  const hovered = drawing.value.edges[beneath ?? (over === undefined ? edge.value : -1)];
  if (hovered) {
    const called = (i: number) => nodes[i]?.called ?? "";
    return [
      ["", `${called(hovered.source)} → ${called(hovered.target)}`, true],
      ["weight ", signed(hovered.weight), true],
      [`${(100 * hovered.share).toFixed(1)} % of the edges' influence`],
    ];
  }
  const held = nodes[over ?? chosen.value];
  if (held) {
    const found: Piece[] = [["", held.called, true]];
    if (held.kind === LOGIT) return [...found, ["value ", signed(held.effect), true]];
    if (!Number.isNaN(held.activation)) found.push(["activation ", signed(held.activation).replace("+", ""), true]);
    found.push(["effect ", signed(held.effect), true], ["influence ", held.influence.toFixed(3), true]);
    return found;
  }
  const all = drawing.value.edges.length;
  if (!all) return [["no edge is in this graph"]];
  const share = edges.value.reduce((sum, one) => sum + one.share, 0);
  // A group's edges are joined: there are fewer of them.
  const more = graph.value.total > all && !graph.value.names.some((name) => viewer.groups.value[name]);
  return [
    [
      `${counted(edges.value.length)} of ${plural(all, "edge")}` +
        (more ? ` (the most influential of ${counted(graph.value.total)})` : "") +
        ", of the influence ",
      percent(share),
      true,
    ],
    [plural(there.value.length, "node")],
  ];
}
