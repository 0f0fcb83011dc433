import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { pillAt, type Shown, shown, totals } from "../src/circuit/graph";
import mount from "../src/circuit/index";
import { type Graph, nameOf, unpack } from "../src/circuit/meta";
import { curveAt, neighbour, step, through, width } from "../src/draw/graph";
import type { Message } from "../src/host/model";
import type { Groups } from "../src/ui/groups";
import { fakeCanvas, Host, press, settled } from "./host";

// embed → 1.0 → 2.1 → logits, and 2.1 reads embed itself; the MLP's way comes last.
const NODES = ["embed", "0.mlp", "1.0", "2.1", "logits"];
const READERS = ["1.0.k", "2.1.k", "logits", "2.1.q", "0.mlp", "2.1.v"];
const EDGES: [writer: number, reader: number, upto: number, score: number][] = [
  [0, 0, 3, 0.5],
  [2, 1, 3, 0.9],
  [3, 2, 3, 1],
  [0, 3, 4, 0.3],
  [0, 4, 6, 0.2],
  [1, 5, 6, -0.4],
];
const TARGETS = [2, 3, 4, 3, 1, 3];
const PLACES = [
  [100, 220, 50],
  [40, 170, 50],
  [160, 120, 40],
  [100, 70, 40],
  [100, 20, 60],
];

beforeEach(() => {
  const kept = fakeCanvas();
  vi.stubGlobal(
    "Path2D",
    class {
      moveTo() {}
      bezierCurveTo() {}
      roundRect() {}
    },
  );
  return kept as never;
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  document.body.replaceChildren();
});

function graph(given: Partial<Graph> = {}): Graph {
  return {
    facts: "test · induction",
    about: { model: "test", task: "induction" },
    nodes: NODES,
    titles: ["embed", "mlp 0", "1.0", "2.1", "logits"],
    labels: { "2.1": "induction" },
    readers: READERS,
    rows: NODES.map((name, i) => [name, PLACES[i]?.[1] ?? 0]),
    size: [240, 240],
    counts: [NODES.length, EDGES.length, EDGES.length],
    total: EDGES.length,
    opens: EDGES.length,
    ends: [1, 1],
    meaning: ["score: what it loses"],
    evidence: [["faithfulness ", "0.91", false]],
    notes: [],
    ...given,
  };
}

function drawing(): DataView {
  const lines = EDGES.map(([writer], i) => {
    const [from = [0, 0], to = [0, 0]] = [PLACES[writer], PLACES[TARGETS[i] as number]];
    const [x0 = 0, y0 = 0] = from;
    const [x1 = 0, y1 = 0] = to;
    const half = (y0 + y1) / 2;
    return [x0, y0 - 9, x0, half, x1, half, x1, y1 + 9];
  });
  const numbers = [
    ...PLACES.flat().map((value) => 8 * value),
    ...EDGES.flatMap((edge) => edge.slice(0, 3)),
    ...lines.flatMap((line, i) => [
      EDGES[i]?.[0] ?? 0,
      TARGETS[i] ?? 0,
      1,
      line.length,
      i,
      ...line.map((value) => 8 * value),
    ]),
  ];
  const data = new Uint8Array(4 * EDGES.length + 2 * numbers.length);
  data.set(new Uint8Array(Float32Array.from(EDGES.map(([, , , score]) => score)).buffer));
  data.set(new Uint8Array(Uint16Array.from(numbers).buffer), 4 * EDGES.length);
  // A message's bytes need not begin where a number may.
  const shifted = new Uint8Array(data.length + 1);
  shifted.set(data, 1);
  return new DataView(shifted.buffer, 1);
}

const drawn = () => unpack(graph(), drawing());
const visible = (count: number) => shown(drawn(), count);

function open(groups: Groups = {}, given: Partial<Graph> = {}) {
  const host = new Host({ graph: graph(given), drawing: drawing(), groups, selection: {}, _style: "" });
  host.answer = ({ id, method, params }: Message) => {
    if (method === "select") return [{ id, reply: { ...(host.get("selection") as Message), ...(params as Message) } }];
    if (method === "function")
      return [{ id, reply: { label: "induction", promotes: [["␣mat", 3.45]], suppresses: [], copying: 0.5 } }];
    if (method === "pattern") return [{ id, reply: { side: 1 } }, [Uint8Array.from([254]).buffer]];
    return [{ id, reply: {} }];
  };
  const el = document.createElement("div");
  document.body.append(el);
  const ends = new AbortController();
  mount().render({ model: host, el, signal: ends.signal });
  const find = (selector: string) => el.querySelector(selector) as HTMLElement;
  const text = (selector: string) => find(selector).textContent?.replace(/\s+/g, " ") ?? "";
  const plot = find(".interp-plot");
  const slider = find("input[type=range]") as HTMLInputElement;
  const slide = (value: number) => {
    slider.value = `${value}`;
    slider.dispatchEvent(new Event("input"));
  };
  const choose = (name: string) => {
    press(plot, "Escape");
    press(plot, "ArrowDown");
    for (let i = 0; i < 12 && !text(".interp-foot").startsWith(name); i++) press(plot, i < 6 ? "ArrowUp" : "ArrowDown");
    expect(text(".interp-foot")).toMatch(new RegExp(`^${name}`));
  };
  const selects = () => host.requests("select").map(({ params }) => params);
  return { host, el, find, text, plot, slider, slide, choose, selects, close: () => ends.abort() };
}

describe("the drawing", () => {
  it("is read from its bytes", () => {
    const { pills, edges, curves } = drawn();
    expect(pills.map(({ name, x, y, wide }) => [name, x, y, wide])).toEqual(
      NODES.map((name, i) => [name, ...(PLACES[i] ?? [])]),
    );
    expect(edges[3]).toEqual({ writer: 0, reader: "2.1.q", upto: 4, score: Math.fround(0.3) });
    expect(curves.map(({ source, target, edges }) => [source, target, edges])).toEqual(
      EDGES.map(([writer], i) => [writer, TARGETS[i], [i]]),
    );
    expect(curves[2]?.path).toEqual([100, 61, 100, 45, 100, 45, 100, 29]);
  });

  it("has fewer curves where fewer edges are shown, and sums what each node writes", () => {
    expect(visible(4).map(({ edges }) => edges)).toEqual([[0], [1], [2], [3]]);
    const total = totals(drawn(), visible(6));
    expect(total.get(0)).toBeCloseTo(1);
    expect(total.get(1)).toBeCloseTo(-0.4);
    const twice: Shown = { ...(visible(6)[0] as Shown), target: 4 };
    expect(totals(drawn(), [...visible(6), twice]).get(0), "an edge that several read counts once").toBeCloseTo(1);
  });

  it("knows the ways through a node", () => {
    const ways = (node: number) => [...through(visible(6), node)].sort();
    expect(ways(2)).toEqual([0, 1, 2]);
    expect(ways(1)).toEqual([2, 4, 5]);
    expect(ways(3)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it("knows what is under the pointer", () => {
    const { pills } = drawn();
    const all = new Set([0, 1, 2, 3, 4]);
    expect(pillAt(pills, all, 160, 120)).toBe(2);
    expect(pillAt(pills, all, 160, 140)).toBe(-1);
    expect(pillAt(pills, new Set([0]), 160, 120), "what is hidden is not there").toBe(-1);
    expect(curveAt(visible(6), 101, 45, 1)).toBe(2);
    expect(curveAt(visible(6), 120, 45, 1)).toBe(-1);
  });

  it("is walked through by rows and within them", () => {
    const { pills } = drawn();
    const all = [0, 1, 2, 3, 4];
    expect(neighbour(pills, all, 0, -1, 0)).toBe(1);
    expect(neighbour(pills, all, 3, 1, 0)).toBe(2);
    expect(neighbour(pills, all, 4, -1, 0)).toBe(4);
    expect(neighbour(pills, all, 3, 0, 1)).toBe(3);
  });

  it("has the steps and widths of the static picture", () => {
    expect([1, 0.5, 1e-9, -1, 9].map((score) => step(score, 1))).toEqual([24, 14, 7, -24, 24]);
    expect(step(Number.NaN, 1)).toBeNaN();
    expect(width(24)).toBe(6);
  });

  it("names nodes as they are called", () => {
    expect(["5.1", "8.mlp", "embed", "<b>"].map(nameOf)).toEqual(["L5H1", "MLP 8", "embed", "<b>"]);
  });
});

describe("the graph", () => {
  it("shows edges down to a threshold, those of one way together", async () => {
    const { text, slide, slider } = open();
    await settled();
    expect(text(".interp-count")).toBe("6 of 6");
    expect(text(".interp-foot")).toContain("6 of 6 edges, each ±0.200");
    expect(text(".interp-evidence")).toBe("faithfulness 0.91");
    slide(5);
    expect(text(".interp-count")).toBe("6 of 6");
    slide(2);
    expect(text(".interp-count")).toBe("3 of 6");
    expect(slider.getAttribute("aria-valuetext")).toBe("3 of 6 edges");
  });

  it("tells the kernel which head is chosen, and asks it what that does once", async () => {
    const { host, choose, selects, text } = open();
    await settled();
    choose("L2H1 induction");
    await settled();
    expect(selects().at(-1)).toEqual({ layer: 2, head: 1 });
    expect(text(".interp-inspector")).toContain("L2H1 induction");
    expect(text(".interp-inspector")).toContain("␣mat+3.450");
    expect(text(".interp-inspector")).toContain("(k) L1H0+0.900");
    expect(text(".interp-inspector")).toContain("logits+1.000");
    expect(host.requests("pattern").at(-1)?.params).toEqual({ node: "2.1" });
    const before = host.requests("function").length;
    choose("embed");
    choose("L2H1 induction");
    await settled();
    const again = host.requests("function").filter(({ params }) => (params as { node: string }).node === "2.1");
    expect(again.length).toBe(1);
    expect(host.requests("function").length).toBeGreaterThanOrEqual(before);
  });

  it("says in the inspector what the kernel cannot say", async () => {
    const { host, choose, find, text } = open();
    const answer = host.answer;
    host.answer = (message) =>
      message.method === "function" ? [{ id: message.id, error: "test is busy; try again" }] : answer?.(message);
    await settled();
    choose("L2H1");
    await settled();
    expect(text(".interp-inspector")).toContain("test is busy; try again");
    expect(text(".interp-inspector"), "its edges are known").toContain("(k) L1H0");
    expect(find(".interp-error").hidden).toBe(true);
  });

  it("follows the selection, of heads that it shows", async () => {
    const { host, text } = open();
    await settled();
    host.change("selection", { layer: 1, head: 0 });
    expect(text(".interp-foot")).toMatch(/^L1H0/);
    expect(host.requests("select")).toEqual([]);
    host.change("selection", { layer: 9, head: 9 });
    expect(text(".interp-foot")).toMatch(/^6 of 6/);
    host.change("selection", { layer: null, head: null });
    expect(text(".interp-foot")).toMatch(/^6 of 6/);
  });

  it("keeps an MLP chosen while the selection is what that made of it", async () => {
    const { host, choose, text, selects } = open();
    await settled();
    choose("MLP 0");
    await settled();
    expect(selects().at(-1)).toEqual({ layer: 0, head: null });
    host.change("selection", { layer: 0, head: null });
    expect(text(".interp-foot")).toMatch(/^MLP 0/);
    host.change("selection", { layer: 2, head: 1 });
    expect(text(".interp-foot")).toMatch(/^L2H1/);
  });

  it("makes groups of marked nodes, and asks the kernel to", async () => {
    const { host, el, find, plot, choose } = open();
    await settled();
    const name = find("[aria-label='Name of the new group']") as HTMLInputElement;
    expect(name.readOnly).toBe(true);
    for (const node of ["L1H0", "L2H1"]) {
      choose(node);
      press(plot, "g");
    }
    expect(name.readOnly).toBe(false);
    name.value = "pair";
    press(name, "Enter");
    await settled();
    expect(host.requests("group").map(({ params }) => params)).toEqual([{ name: "pair", nodes: ["1.0", "2.1"] }]);
    expect(name.readOnly, "nothing is marked any more").toBe(true);
    host.change("groups", { pair: { nodes: ["1.0", "2.1"], folded: false } });
    const buttons = [...el.querySelectorAll<HTMLButtonElement>(".interp-groups button")];
    expect(buttons.map(({ textContent }) => textContent)).toEqual(["Fold", "Ungroup"]);
    for (const button of buttons) button.click();
    const rename = find("[aria-label='Name of pair']") as HTMLInputElement;
    rename.value = "two";
    press(rename, "Enter");
    expect(host.requests("fold").at(-1)?.params).toEqual({ name: "pair", folded: 1 });
    expect(host.requests("ungroup").at(-1)?.params).toEqual({ name: "pair" });
    expect(host.requests("rename").at(-1)?.params).toEqual({ name: "pair", to: "two" });
  });

  it("keeps its keys to itself", async () => {
    const { el, plot, slider } = open();
    await settled();
    const heard = vi.fn();
    el.addEventListener("keydown", heard);
    for (const key of ["ArrowUp", "ArrowDown", "g", "+", "-", "0", "Escape"]) press(plot, key);
    expect(heard).not.toHaveBeenCalled();
    for (const [key, ctrlKey] of [
      ["d", false],
      ["s", true],
    ] as const) {
      slider.dispatchEvent(new KeyboardEvent("keydown", { key, ctrlKey, bubbles: true }));
      expect(slider.hasAttribute("data-lm-suppress-shortcuts"), "Lumino's keys").toBe(!ctrlKey);
      expect(heard, "the page's own are the page's").toHaveBeenCalledTimes(Number(ctrlKey));
    }
  });

  it("has a table that can be sorted", async () => {
    const { el, find } = open();
    await settled();
    const details = find("details.interp-data") as HTMLDetailsElement;
    details.open = true;
    details.dispatchEvent(new Event("toggle"));
    const first = () => [...el.querySelectorAll("tbody tr:first-child td")].map(({ textContent }) => textContent);
    expect(first()).toEqual(["2.1", "logits", "+1.000"]);
    const sort = (key: string) => find(`th[data-key=${key}] button`).click();
    sort("score");
    expect(first()).toEqual(["embed", "0.mlp", "+0.200"]);
    sort("writer");
    expect(first()[0]).toBe("embed");
    expect(find("th[data-key=writer]").getAttribute("aria-sort")).toBe("ascending");
  });

  it("says that a circuit is empty", async () => {
    const none = {
      nodes: [],
      titles: [],
      readers: [],
      rows: [],
      counts: [0, 0, 0],
      total: 0,
      opens: 0,
      size: [10, 46],
    };
    const { text, slider } = open({}, none as unknown as Graph);
    await settled();
    expect(text(".interp-foot")).toContain("no edge is in this circuit");
    expect(slider.max).toBe("0");
  });

  it("lets go of everything when it is closed", async () => {
    const { host, el, close } = open();
    await settled();
    expect(host.count()).toBeGreaterThan(0);
    close();
    expect(host.count()).toBe(0);
    expect(el.children.length).toBe(0);
    expect(host.requests("views").map(({ params }) => params)).toEqual([{ count: 1 }, { count: 0 }]);
  });
});
