import { signal } from "@preact/signals-core";
import { decode } from "../draw/codec";
import { colour, css, ink, sequential } from "../draw/colours";
import { signed } from "../draw/signed";
import { bytes } from "../host/model";
import { button, h } from "../ui/dom";
import { mark } from "../ui/groups";
import { watch } from "../ui/watch";
import { type Edge, FEATURE, GROUP, LOGIT, type Node } from "./meta";
import { bars, edgeRows } from "./rows";
import { strength } from "./strength";
import type { Viewer } from "./view";

/** What the kernel says of an edge: how much of its weight passed which heads last. */
interface Loadings {
  weight: number;
  direct: number;
  heads: [layer: number, head: number, share: number][];
  other: number;
}

const [STRONGEST, CONNECTIONS] = [16, 6];

/** The card of what is chosen: a node, or an edge and its heads. With nothing chosen, the most influential edges. */
export function inspector(viewer: Viewer): HTMLElement {
  const { chosen, edge, drawing, edges, graph, groups, pinned, rpc, ends } = viewer;
  const title = h("div.name");
  const body = h("div.card");
  const fires = signal<{ node: string; values: Float32Array } | undefined>(undefined);
  const loadings = signal<{ edge: string; found?: Loadings; problem?: string } | undefined>(undefined);
  let open = new AbortController();

  const all = () => drawing.value.edges;
  const between = ({ source, target }: Edge) => [source, target].map((i) => drawing.value.nodes[i]?.called).join(" → ");
  const by = (found: number[]) => found.sort((a, b) => (all()[b]?.share ?? 0) - (all()[a]?.share ?? 0));
  const where = (pick: (one: Edge) => boolean) => by([...all().keys()].filter((i) => pick(all()[i] as Edge)));

  const listed = (heading: string, found: number[], other: "source" | "target") =>
    found.length
      ? [
          h("div.muted", {}, heading),
          edgeRows(viewer, found.slice(0, CONNECTIONS), (one) => drawing.value.nodes[one[other]]?.called ?? ""),
          ...(found.length > CONNECTIONS ? [h("div.muted", {}, `and ${found.length - CONNECTIONS} more`)] : []),
        ]
      : [];

  /** Numbers of a node, each with its name. */
  const facts = (node: Node): [string, string][] => [
    ...(Number.isNaN(node.activation)
      ? []
      : [["activation", signed(node.activation).replace("+", "")] as [string, string]]),
    [node.kind === LOGIT ? "value" : "effect on the logits", signed(node.effect)],
    ...(node.kind === LOGIT ? [] : [["influence", node.influence.toFixed(3)] as [string, string]]),
  ];

  const nodeCard = (index: number, node: Node) => {
    const pins = button(pinned.value.has(node.name) ? "Unpin" : "Pin", () => viewer.pin(index));
    const { nodes } = groups.value[node.name] ?? {};
    const names = new Map(drawing.value.nodes.map((one) => [one.name, one.called]));
    const marks = button(nodes ? "Unfold" : "Mark for a group", () =>
      nodes ? viewer.fold(node.name, false) : mark(viewer, [node.name]),
    );
    const heard = h("div.fires");
    const parts: Node_[] = [
      h("div.tokens", {}, ...facts(node).flatMap(([name, value]) => [h("span", {}, name), h("span", {}, value)])),
      h("div.line", {}, pins, ...(node.kind === LOGIT ? [] : [marks])),
    ];
    if (nodes) parts.push(h("div", {}, nodes.map((name) => names.get(name) ?? name).join(", ")));
    if (node.kind === FEATURE) {
      const moved = strength(viewer, node);
      open.signal.addEventListener("abort", () => moved.ends.abort());
      parts.push(moved.element, h("div.muted", {}, "Fires in this prompt"), heard);
      watch(open.signal, () => {
        const values = fires.value?.node === node.name ? fires.value.values : undefined;
        if (values) heard.replaceChildren(coloured(viewer, values));
      });
    }
    const [into, out] = [where((one) => one.target === index), where((one) => one.source === index)];
    parts.push(...listed("Comes from", into, "source"), ...listed("Leads to", out, "target"));
    return parts;
  };

  const edgeCard = (one: Edge) => {
    const { found, problem } = loadings.value ?? {};
    const [source, target] = [one.source, one.target].map((i) => drawing.value.nodes[i] as Node);
    const close = button("Close", () => viewer.chooseEdge(-1));
    const parts: Node_[] = [
      h(
        "div.tokens",
        {},
        ...[
          ["weight", signed(one.weight)],
          ["of the edges' influence", `${(100 * one.share).toFixed(1)} %`],
        ].flatMap(([name = "", value = ""]) => [h("span", {}, name), h("span", {}, value)]),
      ),
      h("div.line", {}, close),
    ];
    if (problem || !found) return [...parts, h("div.muted.said", {}, problem ?? "asking the kernel …")];
    const look = (layer: number, head: number) => () => {
      // An attention view shows that head, where it carries this.
      const query = { layer, head, query: target?.position, key: source?.position };
      rpc.latest("select", query).catch(viewer.fail);
    };
    const rows: [string, number, (() => void)?][] = found.heads.map(([layer, head, share]) => [
      `L${layer}H${head}`,
      share,
      look(layer, head),
    ]);
    return [
      ...parts,
      h("div.muted", {}, "By the last head that it passes"),
      bars(viewer, [["no head", found.direct], ...rows, ["other heads", found.other]]),
      h("div.muted", {}, `Together ${signed(found.weight)}`),
    ];
  };

  // The kernel is asked once for what is chosen.
  watch(ends, () => {
    const node = drawing.value.nodes[chosen.value];
    if (node?.kind !== FEATURE || fires.peek()?.node === node.name) return;
    rpc.latest("fires", { node: node.name }).then(({ buffers }) => {
      fires.value = { node: node.name, values: decode(bytes(buffers[0]), "f4") };
    }, viewer.fail);
  });
  watch(ends, () => {
    const one = all()[edge.value];
    if (!one) return;
    const [source, target] = [one.source, one.target].map((i) => drawing.value.nodes[i]?.name ?? "");
    const key = `${source}→${target}`;
    if (loadings.peek()?.edge === key && loadings.peek()?.found) return;
    loadings.value = { edge: key };
    rpc.latest("edge", { source, target }).then(
      ({ data }) => {
        loadings.value = { edge: key, found: data as unknown as Loadings };
      },
      (error) => {
        if (error.message) loadings.value = { edge: key, problem: error.message };
      },
    );
  });
  watch(
    ends,
    () => {
      const one = all()[edge.value];
      const node = drawing.value.nodes[chosen.value];
      if (one) title.replaceChildren(h("b", {}, between(one)));
      else if (node) {
        const label = graph.value.labels[node.name];
        const more =
          node.kind === GROUP ? "group" : node.kind === FEATURE ? [label, node.name].filter(Boolean).join(" · ") : "";
        title.replaceChildren(h("b", {}, node.called), " ", h("span.muted", {}, more));
      } else title.replaceChildren(h("b", {}, "Most influential edges"));
    },
    () => {
      open.abort();
      open = new AbortController();
      const one = all()[edge.value];
      const node = drawing.value.nodes[chosen.value];
      if (one) body.replaceChildren(...edgeCard(one));
      else if (node) body.replaceChildren(...nodeCard(chosen.value, node));
      else body.replaceChildren(edgeRows(viewer, by([...edges.value.keys()]).slice(0, STRONGEST), between));
    },
  );
  ends.addEventListener("abort", () => open.abort());
  return h("aside.inspector", { "aria-label": "Card", tabindex: -1 }, title, body);
}

type Node_ = globalThis.Node;

/** The prompt, each token on the colour of what is active at it. */
function coloured({ graph, theme }: Viewer, values: Float32Array): HTMLElement {
  const table = sequential(theme.value);
  const end = Math.max(...values) || 1;
  const tokens = graph.value.tokens.flatMap((token, i) => {
    const part = (values[i] ?? 0) / end;
    const span = h("span.w", { title: `${i}: ${signed(values[i]).replace("+", "")}` }, h("bdi", {}, token));
    if (part) {
      const rgb = colour(table, part);
      span.style.cssText = `background:${css(rgb)};color:${ink(rgb)}`;
    }
    return [span, h("wbr")];
  });
  return h("div.text.mono", { tabindex: 0, role: "group", "aria-label": "The prompt" }, ...tokens);
}
