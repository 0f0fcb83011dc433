import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { trace as sizes } from "../../src/interp/views/kit/palette.json";
import { colours } from "../src/draw/colours";
import type { Message } from "../src/host/model";
import { curves, mark, outline, titled } from "../src/trace/draw";
import mount from "../src/trace/index";
import { type Graph, type Node, unpack } from "../src/trace/meta";
import type { Groups } from "../src/ui/groups";
import { fakeCanvas, Host, press, settled } from "./host";

// embed@1 → 0.7@1 → 1.3@2 → the logit; an error beside them; the last two come with more edges.
const NAMES = ["embed@1", "0.7@1", "0.error@1", "1.3@2", "logit: Mary"];
const KINDS = [0, 1, 2, 1, 3];
const PLACES = [
  [100, 180],
  [94, 120],
  [107, 120],
  [200, 70],
  [200, 20],
];
const FIRST = [3, 2, 4, 1, 0];
const EDGES: [source: number, target: number, weight: number, share: number][] = [
  [3, 4, 2, 0.5],
  [1, 3, -1.5, 0.25],
  [0, 1, 1, 0.125],
  [2, 4, 0.5, 0.0625],
];

beforeEach(() => fakeCanvas() as never);
afterEach(() => {
  vi.restoreAllMocks();
  document.body.replaceChildren();
});

function graph(given: Partial<Graph> = {}): Graph {
  return {
    facts: "test · Mary",
    about: { model: "test", target: "␣Mary", features: "planted" },
    tokens: ["When", "␣Mary", "␣gave"],
    names: NAMES,
    titles: ["␣Mary", "a name", "error", "␣gave 1.3", "␣Mary"],
    called: ["token ␣Mary 1", "a name at ␣Mary 1", "error 0 at ␣Mary 1", "1.3 at ␣gave 2", "␣Mary"],
    labels: { "0.7@1": "a name" },
    rows: [
      ["logit", 20],
      ["1", 70],
      ["0", 120],
      ["embed", 180],
    ],
    axis: [
      ["When", 60],
      ["␣Mary", 100],
      ["␣gave", 200],
    ],
    size: [280, 260, 200],
    counts: [NAMES.length, EDGES.length],
    total: EDGES.length,
    opens: 3,
    ends: [0.5, 2],
    meaning: ["red: raises it"],
    key: [["round", "feature"]],
    scores: [["replacement", "0.75", "of the influence"]],
    features: [
      ["1.3@2", "fires most at ␣gave", "␣gave 2", "3", "+2.000", "0.600"],
      ["0.7@1", "a name", "␣Mary 1", "2", "+1.000", "0.400"],
    ],
    caption: "Most influential features",
    measured: [],
    notes: [],
    ...given,
  };
}

function drawing(): DataView {
  const values = [
    ...NAMES.flatMap((_, i) => [KINDS[i] === 1 ? 2 + i : Number.NaN, 0.1 + i / 10, i - 2]),
    ...EDGES.flatMap((edge) => edge.slice(2)),
  ];
  const numbers = [
    ...NAMES.flatMap((_, i) => [
      ...(PLACES[i] ?? []).map((value) => 8 * value),
      8 * (KINDS[i] === 3 ? 60 : 10),
      KINDS[i] ?? 0,
      [0, 1, 1, 2, 3][i] ?? 0,
      [1, 1, 1, 2, 2][i] ?? 0,
      FIRST[i] ?? 0,
      KINDS[i] === 1 ? 2 : 0,
      3,
    ]),
    ...EDGES.flatMap((edge) => edge.slice(0, 2)),
  ];
  const data = new Uint8Array(4 * values.length + 2 * numbers.length);
  data.set(new Uint8Array(Float32Array.from(values).buffer));
  data.set(new Uint8Array(Uint16Array.from(numbers).buffer), 4 * values.length);
  // A message's bytes need not begin where a number may.
  const shifted = new Uint8Array(data.length + 1);
  shifted.set(data, 1);
  return new DataView(shifted.buffer, 1);
}

const light = { ...colours([255, 255, 255], [20, 20, 20]), accent: "#3453d6" };
const drawn = () => unpack(graph(), drawing());

function open(groups: Groups = {}, given: Partial<Graph> = {}) {
  const host = new Host({ graph: graph(given), drawing: drawing(), groups, selection: {}, _style: "" });
  const measured: (number | null)[] = [-0.5];
  host.answer = ({ id, method, params }: Message) => {
    if (method === "select") return [{ id, reply: { ...(host.get("selection") as Message), ...(params as Message) } }];
    if (method === "fires") return [{ id, reply: {} }, [Float32Array.from([0, 2, 0.5]).buffer]];
    if (method === "edge")
      return [
        {
          id,
          reply: {
            weight: -1.5,
            direct: 0.25,
            heads: [
              [0, 2, -1],
              [1, 1, -0.5],
            ],
            other: -0.25,
          },
        },
      ];
    if (method === "move") return [{ id, reply: { moves: [["␣Mary", -1, measured[0]]] } }];
    return [{ id, reply: {} }];
  };
  const el = document.createElement("div");
  document.body.append(el);
  const ends = new AbortController();
  mount().render({ model: host, el, signal: ends.signal });
  const find = (selector: string) => el.querySelector(selector) as HTMLElement;
  const text = (selector: string) => find(selector).textContent?.replace(/\s+/g, " ") ?? "";
  const area = find(".interp-graph");
  const slide = (value: number, slider = find(".interp-head input[type=range]") as HTMLInputElement) => {
    slider.value = `${value}`;
    slider.dispatchEvent(new Event("input"));
    slider.dispatchEvent(new Event("change"));
  };
  const button = (name: string) =>
    [...el.querySelectorAll("button")].find((one) => one.textContent === name) as HTMLButtonElement;
  const choose = (called: string) => {
    press(area, "Escape");
    press(area, "ArrowUp");
    for (let i = 0; i < 8 && !text(".interp-foot").startsWith(called); i++)
      press(area, i < 4 ? "ArrowDown" : "ArrowUp");
    expect(text(".interp-foot")).toMatch(new RegExp(`^${called}`));
  };
  return { host, el, find, text, area, slide, button, choose, close: () => ends.abort() };
}

describe("the drawing", () => {
  it("is read from its bytes", () => {
    const { nodes, edges } = drawn();
    expect(
      nodes.map(({ name, kind, x, y, layer, position, first }) => [name, kind, x, y, layer, position, first]),
    ).toEqual(
      NAMES.map((name, i) => [
        name,
        KINDS[i],
        ...(PLACES[i] ?? []),
        ([0, 1, 1, 2, 3][i] ?? 0) - 1,
        [1, 1, 1, 2, 2][i],
        FIRST[i],
      ]),
    );
    expect(edges.map(({ source, target, weight, share }) => [source, target, weight, share])).toEqual(EDGES);
    expect(nodes[1]).toMatchObject({ activation: 3, effect: -1, side: 2, until: 3 });
    // From the top of the one to the foot of the other.
    expect(edges[1]?.path.slice(0, 2)).toEqual([94, 120 - sizes.mark]);
    expect(edges[1]?.path.slice(-2)).toEqual([200, 70 + sizes.mark]);
  });

  it("tells kinds apart by their shapes, signs by their colours", () => {
    const { nodes, edges } = drawn();
    const [token, feature, error, , logit] = nodes as [Node, Node, Node, Node, Node];
    const shapes = [token, feature, error, logit].map((node) => outline(node).replace(/[\d. -]/g, ""));
    expect(shapes).toEqual(["MLLLz", "Mhahaz", "Mhvhz", "Mhahaz"]);
    expect(mark(error, 2, light)).toContain('fill="rgb(255,255,255)"');
    expect(mark(logit, 2, light)).toContain("␣Mary");
    const widths = [...curves(edges, 0.5, light).matchAll(/stroke-width="([\d.]+)"/g)].map((found) => Number(found[1]));
    expect(widths, "the weakest first").toEqual([...widths].sort((a, b) => a - b));
    const [blue] = curves(edges.slice(1, 2), 0.5, light).match(/rgb\((\d+),(\d+),(\d+)\)/g) ?? [];
    expect(blue).toBeDefined();
    const [r = 0, , b = 0] = (blue as string).match(/\d+/g)?.map(Number) ?? [];
    expect(b).toBeGreaterThan(r);
  });

  it("writes titles of features as text", () => {
    const node = { ...(drawn().nodes[1] as Node), title: "<b>&" };
    expect(titled(node, light)).toContain("&#60;b&#62;&#38;");
    expect(titled({ ...node, side: 0 }, light)).toBe("");
  });
});

describe("the graph", () => {
  it("shows the edges that it opens with, and says how many", async () => {
    const { text, find, slide } = open();
    await settled();
    expect(text(".interp-count")).toBe("3 of 4 · 88 %");
    expect(text(".interp-foot")).toBe("3 of 4 edges, of the influence 88 %4 nodes");
    slide(4);
    expect(text(".interp-foot")).toContain("4 of 4 edges, of the influence 94 %5 nodes");
    slide(1);
    expect(text(".interp-foot")).toContain("1 of 4 edges, of the influence 50 %2 nodes");
    expect(text(".interp-name")).toBe("Most influential edges");
    expect(find(".interp-strongest").children).toHaveLength(1);
    expect(text(".interp-scores")).toContain("0.75replacement: of the influence");
  });

  it("is walked through with keys, and a node's card says what it is", async () => {
    const { choose, text, host, area, find } = open();
    await settled();
    choose("a name at ␣Mary 1");
    await settled();
    const card = text(".interp-inspector");
    for (const said of ["activation3.000", "effect on the logits−1.000", "influence0.200", "a name · 0.7@1"])
      expect(card).toContain(said);
    expect(card).toContain("Comes fromtoken ␣Mary 1+1.000");
    expect(card).toContain("Leads to1.3 at ␣gave 2−1.500");
    expect(host.requests("fires").at(-1)?.params).toEqual({ node: "0.7@1" });
    const words = [...find(".interp-fires").querySelectorAll<HTMLElement>(".interp-w")];
    expect(words.map((word) => word.textContent)).toEqual(["When", "␣Mary", "␣gave"]);
    expect(words.map((word) => word.style.background !== "")).toEqual([false, true, true]);
    expect(host.requests("select").at(-1)?.params).toEqual({ layer: 0, position: 1, head: null });
    press(area, "Escape");
    expect(text(".interp-name")).toBe("Most influential edges");
    expect(host.requests("select").at(-1)?.params).toEqual({ layer: null, position: null, head: null });
  });

  it("leads with Enter to the card", async () => {
    const { choose, area, find } = open();
    await settled();
    choose("1.3 at ␣gave 2");
    press(area, "Enter");
    expect(document.activeElement).toBe(find(".interp-inspector"));
  });

  it("splits an edge by its heads, which an attention view can follow", async () => {
    const { text, button, host, area } = open();
    await settled();
    button("a name at ␣Mary 1 → 1.3 at ␣gave 2").click();
    await settled();
    expect(host.requests("edge").at(-1)?.params).toEqual({ source: "0.7@1", target: "1.3@2" });
    const card = text(".interp-inspector");
    for (const said of [
      "weight−1.500",
      "no head+0.250",
      "L0H2−1.000",
      "L1H1−0.500",
      "other heads−0.250",
      "Together −1.500",
    ])
      expect(card).toContain(said);
    expect(text(".interp-foot")).toContain("weight −1.500");
    button("L0H2").click();
    expect(host.requests("select").at(-1)?.params).toEqual({ layer: 0, head: 2, query: 2, key: 1 });
    await settled();
    expect(text(".interp-inspector"), "the card stays").toContain("Together");
    press(area, "Escape");
    expect(text(".interp-name")).toBe("Most influential edges");
  });

  it("measures a feature whose strength is changed", async () => {
    const { choose, find, slide, text, host } = open();
    await settled();
    choose("1.3 at ␣gave 2");
    await settled();
    const slider = find(".interp-strength input") as HTMLInputElement;
    slide(-100, slider);
    expect(text(".interp-strength")).toContain("taken away");
    await settled();
    expect(host.requests("move").at(-1)?.params).toEqual({ node: "1.3@2", change: -100 });
    expect(text(".interp-strength")).toContain("Change of ␣Maryforetold−1.000measured−0.500");
    slide(0, slider);
    await settled();
    expect(host.requests("move"), "nothing is asked of what is as it is").toHaveLength(1);
    expect(text(".interp-strength")).not.toContain("foretold");
  });

  it("says why nothing could be measured", async () => {
    const { choose, find, slide, text, host } = open();
    await settled();
    choose("1.3 at ␣gave 2");
    await settled();
    host.answer = ({ id }) => [{ id, error: "the model is busy" }];
    slide(50, find(".interp-strength input") as HTMLInputElement);
    await settled();
    expect(text(".interp-strength")).toContain("150 %the model is busy");
  });

  it("dims what is on no way through a pinned node", async () => {
    const { choose, area, find, text } = open();
    await settled();
    const [, base, over] = [...find(".interp-sheet").children] as [Element, Element, Element];
    expect(base.classList.contains("interp-dim")).toBe(false);
    choose("a name at ␣Mary 1");
    press(area, "p");
    expect(text(".interp-inspector")).toContain("Unpin");
    press(area, "Escape");
    expect(base.classList.contains("interp-dim"), "while nothing is chosen").toBe(true);
    // The way from the token to the logit: three edges.
    expect(over.innerHTML.match(/C/g)).toHaveLength(3);
    press(area, "Escape");
    expect(base.classList.contains("interp-dim"), "Escape lets go of pins last").toBe(false);
    choose("a name at ␣Mary 1");
    press(area, "p");
    press(area, "P");
    press(area, "Escape");
    expect(base.classList.contains("interp-dim")).toBe(false);
  });

  it("groups what is marked under a name", async () => {
    const { choose, area, find, host, text } = open();
    await settled();
    for (const name of ["a name at ␣Mary 1", "1.3 at ␣gave 2"]) {
      choose(name);
      press(area, "g");
    }
    expect(text(".interp-menu")).toContain("2 nodes marked");
    const field = find("[aria-label='Name of the new group']") as HTMLInputElement;
    field.value = "names";
    press(field, "Enter");
    expect(host.requests("group").at(-1)?.params).toEqual({ name: "names", nodes: ["0.7@1", "1.3@2"] });
  });

  it("does not mark a logit", async () => {
    const { choose, area, text } = open();
    await settled();
    choose("␣Mary");
    press(area, "g");
    expect(text(".interp-menu")).toContain("shift-click nodes");
  });

  it("follows a selection made elsewhere to the cell's most influential node", async () => {
    const { host, text, slide } = open();
    await settled();
    slide(4);
    host.change("selection", { layer: 0, position: 1, head: null });
    expect(text(".interp-foot")).toContain("error 0 at ␣Mary 1");
    host.change("selection", { layer: 1, position: 0, head: 2 });
    expect(text(".interp-foot"), "a head's layer is no node's").not.toContain("1.3");
  });

  it("chooses a feature in the table, also one that is not drawn yet", async () => {
    const { button, text, slide } = open();
    await settled();
    slide(1);
    button("0.7@1").click();
    expect(text(".interp-foot")).toContain("a name at ␣Mary 1");
    expect(text(".interp-count")).toContain("2 of 4");
  });

  it("shows what was measured in the model and of other prompts, each with its caption", async () => {
    const measured: Graph["measured"] = [
      ["1 feature taken away", 40, 20, "<path d='M0 0H9'/>"],
      ["Alike in graphs of 5 paraphrases", 80, 30, "<circle r='2'/>"],
    ];
    const { el, text } = open({}, { measured });
    await settled();
    expect(el.querySelectorAll(".interp-measured").length).toBe(2);
    expect(text(".interp-below")).toContain("Alike in graphs of 5 paraphrases");
    expect(el.querySelectorAll(".interp-measured svg circle").length).toBe(1);
  });

  it("has its edges as a table that can be sorted", async () => {
    const { find, el, button } = open();
    await settled();
    const details = find("details.interp-data") as HTMLDetailsElement;
    details.open = true;
    details.dispatchEvent(new Event("toggle"));
    const cells = () => [...el.querySelectorAll("tbody tr")].map((row) => row.children[2]?.textContent);
    expect(cells()).toEqual(["+2.000", "−1.500", "+1.000"]);
    button("weight").click();
    button("weight ↓").click();
    expect(cells()).toEqual(["+1.000", "−1.500", "+2.000"]);
  });

  it("saves its data, and asks the kernel for its picture", async () => {
    const { button, choose, area, host } = open();
    await settled();
    choose("1.3 at ␣gave 2");
    press(area, "p");
    const saved: string[] = [];
    vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
      saved.push(this.href);
    });
    button("Data (JSON)").click();
    await settled();
    const data = JSON.parse(
      new TextDecoder().decode(Uint8Array.from(atob(saved[0]?.split(",")[1] ?? ""), (c) => c.charCodeAt(0))),
    );
    expect(data.target).toBe("␣Mary");
    expect(data.edges[0]).toEqual({ source: "1.3@2", target: "logit: Mary", weight: 2, influence: 0.5 });
    expect(data.nodes).toHaveLength(4);
    button("Drawing (SVG)").click();
    await settled();
    expect(host.requests("picture").at(-1)?.params).toMatchObject({ edges: 3, chosen: "1.3@2", pinned: ["1.3@2"] });
  });

  it("leaves nothing behind", async () => {
    const { host, el, close } = open();
    await settled();
    expect(host.count()).toBeGreaterThan(0);
    close();
    expect(host.count()).toBe(0);
    expect(el.children).toHaveLength(0);
  });
});
