import { computed, signal } from "@preact/signals-core";
import { STEPS } from "../draw/codec";
import { colour, diverging, sequential } from "../draw/colours";
import { signed } from "../draw/signed";
import { bytes } from "../host/model";
import { button, h } from "../ui/dom";
import { watch } from "../ui/watch";
import type { Shown } from "./graph";
import { inputOf, nameOf } from "./meta";
import { partsOf, type Viewer } from "./view";

/** What the kernel says that a node does. */
interface Function {
  label: string;
  promotes: [token: string, value: number | null][];
  suppresses: [token: string, value: number | null][];
  copying: number | null;
}

const STRONGEST = 10;
const CONNECTIONS = 6;

/** The inspector of the chosen node: what it does, what it reads and writes. With none chosen, the strongest edges. */
export function inspector(viewer: Viewer): HTMLElement {
  const { chosen, drawing, curves, pointer, theme, rpc, ends, groups } = viewer;
  const known = new Map<string, Function>();
  const answer = signal<{ node: string; words?: Function; problem?: string } | undefined>(undefined);
  const pattern = signal<{ node: string; side: number; values: Uint8Array } | undefined>(undefined);
  const title = h("div.name");
  const does = h("div.pairs", { "aria-live": "polite" });
  const thumbnail: HTMLCanvasElement = h("canvas", { role: "img" });
  const picture = h("div.thumbnail", {}, h("div.caption", {}, "Attention, first clean prompt"), thumbnail);
  const connections = h("div.pairs");
  const strong = h("div.strongest");
  const pill = computed(() => drawing.value.pills[chosen.value]);

  // The kernel is asked once for each node; busy, it says so, and is asked again when the node is chosen again.
  watch(ends, () => {
    const { name = "" } = pill.value ?? {};
    const head = partsOf(name)?.[1] ?? null;
    if (!name || groups.value[name] || name === "logits") {
      answer.value = pattern.value = undefined;
      return;
    }
    const words = known.get(name);
    answer.value = words ? { node: name, words } : { node: name };
    pattern.value = undefined;
    const describe = () =>
      words
        ? Promise.resolve()
        : rpc.latest("function", { node: name }).then(({ data }) => {
            const found = data as unknown as Function;
            known.set(name, found);
            if (answer.peek()?.node === name) answer.value = { node: name, words: found };
          });
    const loadPattern = async () => {
      if (head === null) return;
      const { data, buffers } = await rpc.latest("pattern", { node: name });
      if (answer.peek()?.node === name)
        pattern.value = { node: name, side: data.side as number, values: bytes(buffers[0]) };
    };
    describe()
      .then(loadPattern)
      .catch((error) => {
        if (answer.peek()?.node === name && error.message)
          answer.value = { ...answer.peek(), node: name, problem: error.message };
      });
  });

  /** What stands under a heading, each with its value. */
  const listed = (heading: string, rows: (readonly [Node | string, number | null])[], more = 0) =>
    rows.length
      ? [
          h("div.muted", {}, heading),
          h("div.tokens", {}, ...rows.flatMap(([name, value]) => [h("span", {}, name), h("span", {}, signed(value))])),
          ...(more ? [h("div.muted", {}, `and ${more} more`)] : []),
        ]
      : [];
  const tokens = (heading: string, list: Function["promotes"]) =>
    listed(
      heading,
      list.map(([token, value]) => [h("bdi.mono", {}, token), value]),
    );
  const edge = (index: number) => {
    const curve = curves.value[index] as Shown;
    const text = `${short(curve.source)} → ${drawing.value.edges[curve.edges[0] ?? 0]?.reader}`;
    const between = curve.edges.length > 1 ? `${short(curve.source)} → ${short(curve.target)}` : text;
    const row = h("div", {}, h("span.mono", {}, between), h("span", {}, signed(curve.score)));
    row.style.setProperty("--part", `${Math.min(1, Math.abs(curve.score) / (viewer.graph.value.ends[0] || 1))}`);
    row.style.setProperty("--colour", diverging(theme.value)(Math.sign(curve.score)));
    row.addEventListener("pointerenter", () => {
      pointer.value = { curve: index };
    });
    row.addEventListener("pointerleave", () => {
      pointer.value = {};
    });
    return row;
  };
  const short = (i: number) => drawing.value.pills[i]?.name ?? "";
  const edgesOf = (heading: string, mine: "source" | "target", other: "source" | "target") => {
    const found = curves.value
      .filter((curve) => curve[mine] === chosen.value)
      .sort((a, b) => Math.abs(b.score) - Math.abs(a.score));
    const rows = found.slice(0, CONNECTIONS).map((curve) => {
      const input = curve.edges.length > 1 ? "" : inputOf(drawing.value.edges[curve.edges[0] ?? 0]?.reader ?? "");
      const name = [nameOf(short(curve[other])), input && `(${input})`];
      if (mine === "target") name.reverse();
      return [name.join(" ").trim(), curve.score] as const;
    });
    return listed(heading, rows, found.length - rows.length);
  };

  watch(
    ends,
    () => {
      const selected = pill.value;
      title.replaceChildren(...(selected ? [h("b", {}, nameOf(selected.name)), " "] : [h("b", {}, "Strongest edges")]));
      if (!selected) return;
      const label = answer.value?.words?.label || viewer.graph.value.labels[selected.name] || "";
      title.append(h("span.muted", {}, groups.value[selected.name] ? "group" : label));
    },
    () => {
      const { words, problem } = answer.value ?? {};
      does.replaceChildren();
      if (words) {
        does.append(...tokens("Promotes", words.promotes), ...tokens("Suppresses", words.suppresses));
        if (words.copying !== null)
          does.append(h("div.muted", {}, "Copying score ", h("b", {}, signed(words.copying))));
      } else if (answer.value && !problem) does.append(h("div.muted.said", {}, "asking the model …"));
      if (problem) does.append(h("div.muted.said", {}, problem));
    },
    () => {
      const image = pattern.value;
      picture.hidden = !image;
      if (!image) return;
      const { side, values } = image;
      const table = sequential(theme.value);
      thumbnail.width = thumbnail.height = side;
      const context = thumbnail.getContext("2d");
      const cells = context?.createImageData(side, side);
      values.forEach((value, at) => {
        const past = at % side <= Math.floor(at / side);
        cells?.data.set([...(past ? colour(table, value / STEPS) : theme.value.empty), 255], 4 * at);
      });
      if (cells) context?.putImageData(cells, 0, 0);
      thumbnail.setAttribute("aria-label", `${nameOf(image.node)}: whom each token looks at`);
    },
    () => {
      const selected = pill.value;
      if (!selected) {
        const size = (i: number) => Math.abs((curves.value[i] as Shown).score) || 0;
        const strongest = [...curves.value.keys()].sort((a, b) => size(b) - size(a));
        // A key that several heads read is one edge, whichever curve shows it.
        const first = new Map(strongest.map((i) => [`${curves.value[i]?.edges}`, i]));
        strong.replaceChildren(...[...first.values()].slice(0, STRONGEST).map(edge));
        connections.replaceChildren();
        return;
      }
      strong.replaceChildren();
      connections.replaceChildren();
      const { nodes } = groups.value[selected.name] ?? {};
      if (nodes) {
        const open = button("Unfold", () => viewer.fold(selected.name, false));
        connections.append(h("div", {}, nodes.map(nameOf).join(", ")), open);
      }
      connections.append(...edgesOf("Reads", "target", "source"), ...edgesOf("Writes to", "source", "target"));
    },
  );
  return h("aside.inspector", { "aria-label": "Node" }, title, does, connections, strong, picture);
}
