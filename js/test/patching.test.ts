import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { signed as levels } from "../../src/interp/views/kit/palette.json";
import { diverging, lifted, type Theme } from "../src/draw/colours";
import { columnsOf, heat, measure } from "../src/draw/diverging";
import { signed } from "../src/draw/signed";
import type { Message } from "../src/host/model";
import mount from "../src/patching/index";
import type { Entry, Form, Sweep } from "../src/patching/meta";
import { fakeCanvas, Host, press, settled } from "./host";

const LAYERS = [4, 7, 9];
const HEADS = 4;
const EFFECTS = [0.1, -0.2, 0, 0.4, 2, 0.05, -1, 0, 0, 0.3, 0, 0];

beforeEach(() => {
  fakeCanvas();
});
afterEach(() => {
  vi.restoreAllMocks();
  document.body.replaceChildren();
});

const packed = (...planes: number[][]) => new DataView(Float32Array.from(planes.flat()).buffer);
const blank = (value: number) => EFFECTS.map(() => value);

function form(given: Partial<Form> = {}): Form {
  const both = <T>(value: T) => ({ recovery: value, effect: value });
  return {
    hold: "strongest",
    index: 0,
    axes: ["layer", "head"],
    shape: [LAYERS.length, HEADS],
    own: null,
    block: 1,
    planes: ["effect", "low", "high"],
    ends: { exact: { recovery: 0.5, effect: 2 }, estimate: both(1) },
    marks: { exact: both([]), estimate: both([]) },
    caption: "Heads: a row per layer",
    labels: { rows: ["L4", "L7", "L9"], columns: ["0", "1", "2", "3"], tokens: false, marked: [] },
    ...given,
  };
}

const entry = (at: number[], effect: number): Entry => ({ at, effect, low: null, high: null, estimate: null });

/** A sweep of 3 layers and 4 heads, whose strongest is L7H0. */
function sweep(given: Partial<Sweep> = {}): Sweep {
  return {
    facts: "test · z by head · 1 pair",
    axes: ["layer", "head"],
    shape: [LAYERS.length, HEADS],
    layers: LAYERS,
    tokens: [],
    named: false,
    queries: true,
    head: "H",
    metric: "logit difference",
    span: 4,
    start: 0,
    base: -3,
    turned: false,
    meaning: { recovery: "recovery: 0 nothing", effect: "effect: 0 nothing" },
    quantity: "recovery",
    pairs: 1,
    pair: {
      heading: "Pair",
      prompts: [
        [
          "clean",
          [
            ["Mary", false],
            ["␣gave", true],
          ],
        ],
      ],
      sides: ["clean", "corrupted"],
      answers: [["␣John over ␣Mary", "+1.000", "−3.000"]],
    },
    notes: [],
    lines: 0,
    extras: { above: [], below: [], before: [], after: [] },
    done: 12,
    total: 12,
    share: 100,
    seconds: 1.25,
    running: false,
    estimated: false,
    top: { exact: [entry([1, 0], 2), entry([1, 2], -1), entry([0, 3], 0.4)], estimate: [] },
    form: form(),
    cells: packed(EFFECTS, blank(Number.NaN), blank(Number.NaN)),
    ...given,
  };
}

function shown(given: Partial<Sweep> = {}, more: Record<string, unknown> = {}) {
  const host = new Host({ sweep: sweep(given), selection: {}, _style: "" });
  Object.assign(host, more);
  host.answer = ({ id, method, params }: Message) => {
    if (method === "select") return [{ id, reply: { ...(host.get("selection") as Message), ...(params as Message) } }];
    if (method === "says") return [{ id, reply: { sides: ["unpatched", "patched"], tokens: [["␣John", 0.1, 0.75]] } }];
    return [{ id, reply: {} }];
  };
  const el = document.createElement("div");
  document.body.append(el);
  const ends = new AbortController();
  mount().render({ model: host, el, signal: ends.signal });
  const find = (selector: string) => {
    const found = el.querySelector<HTMLElement>(selector);
    if (!found) throw new Error(`no ${selector}`);
    return found;
  };
  const text = (selector: string) => find(selector).textContent?.replace(/\s+/g, " ") ?? "";
  const named = (label: string) =>
    [...el.querySelectorAll("button")].find((b) => b.textContent === label) as HTMLButtonElement;
  const selects = () => host.requests("select").map(({ params }) => params);
  return { host, el, find, text, named, selects, close: () => ends.abort() };
}

const fills = (el: HTMLElement) =>
  [...el.querySelectorAll(".interp-plot g:first-of-type > path[fill^=rgb]")].map((path) => path.getAttribute("fill"));

describe("the heatmap", () => {
  it("says what is strongest, its pair and its facts", async () => {
    const { el, text } = shown();
    await settled();
    expect(text(".interp-head")).toContain("test · z by head · 1 pair");
    expect(text(".interp-foot")).toBe("L7H0strongest of 12recovery +0.500effect +2.000patched logit difference −1.000");
    const rows = [...el.querySelectorAll("[role=option]")].map((row) => row.textContent);
    expect(rows).toEqual(["L7H0+0.500", "L7H2−0.250", "L4H3+0.100"]);
    expect(el.querySelector(".interp-differs")?.textContent).toBe("␣gave");
    expect(el.querySelector<HTMLElement>(".interp-progress")?.hidden).toBe(true);
  });

  it("colours towards red, against blue, and what is nothing not at all", async () => {
    const { el } = shown();
    await settled();
    const at = diverging({ background: [255, 255, 255], name: "light" });
    const known = EFFECTS.filter((effect) => effect);
    const expected = known.map((effect) => at(Math.round(lifted(effect / 4 / 0.5) * levels.levels) / levels.levels));
    expect(new Set(fills(el))).toEqual(new Set(expected));
    expect(at(1)).toBe("rgb(165,15,42)");
    expect(at(-1)).toBe("rgb(29,79,145)");
  });

  it("draws an interval whole, beyond the end of its bar", async () => {
    const strong = { ...entry([1, 0], 2), low: 1.5, high: 2.5, least: 1, most: 3 };
    const { el, named } = shown({ pairs: 4, top: { exact: [strong, entry([1, 2], -1)], estimate: [] } });
    await settled();
    const place = (kind: string) => {
      const { left, width } = el.querySelector<HTMLElement>(`.interp-track > .interp-${kind}`)?.style ?? {};
      return [Number.parseFloat(left ?? ""), Number.parseFloat(width ?? "")] as const;
    };
    const [[zero, bar], [low, whole]] = [place("towards"), place("span")];
    expect(low - zero).toBeCloseTo(bar / 2, 3);
    expect(whole).toBeCloseTo(bar, 3);
    // A recovery is less sure than the effect alone.
    named("Effect").click();
    expect(place("span")[1]).toBeCloseTo(place("towards")[1] / 2, 3);
  });

  it("switches between recovery and effect, in the picture, the list and the footer alike", async () => {
    const { el, named, text } = shown();
    await settled();
    const before = fills(el);
    named("Effect").click();
    expect([...el.querySelectorAll("[role=option]")][1]?.textContent).toBe("L7H2−1.000");
    expect(text(".interp-list .interp-caption")).toBe("Strongest components, effect");
    expect(text(".interp-plot")).toContain("+2");
    // The same cells on a scale that is as much wider: the same picture.
    expect(fills(el)).toEqual(before);
  });

  it("has no recovery where clean and corrupted are the same, and says so", async () => {
    const { named, text } = shown({ span: 0 });
    await settled();
    expect(named("Recovery").closest<HTMLElement>(".interp-segmented")?.hidden).toBe(true);
    expect(text(".interp-foot")).toContain("recovery undefined: clean = corrupted");
  });

  it("turns the colours where a metric falls towards the answer", async () => {
    const { el, named } = shown({ span: -4 });
    await settled();
    const recovered = fills(el);
    named("Effect").click();
    expect(new Set(fills(el))).toEqual(new Set(recovered));
  });

  it("hatches what has no finite value and leaves out what is not computed", async () => {
    const values = [...EFFECTS];
    values[0] = Number.NaN;
    values[3] = Number.POSITIVE_INFINITY;
    const cells = packed(values, blank(Number.NaN), blank(Number.NaN));
    const { el } = shown({ cells, done: 11, top: { exact: [], estimate: [] } });
    await settled();
    expect(el.querySelectorAll(".interp-plot path[stroke='rgb(194,65,12)']")).toHaveLength(1);
    expect(el.querySelector(".interp-foot")?.textContent).toBe("no cell changes the metric");
  });

  it("switches to the estimate where there is one, and shows both numbers", async () => {
    const planes = ["effect", "low", "high", "estimate"];
    const held = { ...entry([1, 0], 2), estimate: 2.5 };
    const only = { ...entry([2, 1], 0), effect: null, estimate: 1.5 };
    const { el, named, text } = shown({
      estimated: true,
      done: 1,
      form: form({ planes }),
      cells: packed(blank(Number.NaN), blank(Number.NaN), blank(Number.NaN), EFFECTS),
      top: { exact: [held], estimate: [held, only] },
    });
    await settled();
    expect(named("Estimate").getAttribute("aria-pressed")).toBe("true");
    expect([...el.querySelectorAll("[role=option]")].map((row) => row.textContent)).toEqual([
      "L7H0+0.625",
      "L9H1+0.375",
    ]);
    expect(text(".interp-foot")).toContain("effect +2.000");
    expect(text(".interp-foot")).toContain("estimated effect +2.500");
    named("Exact").click();
    expect(el.querySelectorAll("[role=option]")).toHaveLength(1);
    expect(fills(el)).toEqual(["rgb(243,243,244)"]); // what is not verified
  });

  it("writes hostile text as text only", async () => {
    const bad = "<img src=x onerror=window.bad=1></script><script>window.bad=1</script>";
    const labels = { rows: [bad, "L7", "L9"], columns: [bad, "1", "2", "3"], tokens: true, marked: [0] };
    const { el } = shown({
      facts: bad,
      notes: [bad],
      tokens: [bad],
      form: form({ caption: bad, labels }),
      pair: { heading: bad, prompts: [[bad, [[bad, true]]]], sides: [bad, bad], answers: [[bad, bad, bad]] },
    });
    await settled();
    expect(el.querySelector("img, script, a")).toBeNull();
    expect(el.querySelector(".interp-plot")?.textContent).toContain("<img src=x");
    expect((window as unknown as { bad?: number }).bad).toBeUndefined();
  });
});

describe("a sweep that runs", () => {
  const running = { running: true, done: 3, share: 30 };

  it("shows how far it is, and goes on to its end in the same view", async () => {
    const { host, el, find, text } = shown(running);
    await settled();
    expect(text(".interp-count")).toBe("3 of 12 cells · 1.3 s · about 3 s left");
    expect(find(".interp-progress > div").style.width).toBe("30%");
    press(find(".interp-plot"), "ArrowRight");
    host.change("sweep", sweep());
    await settled();
    expect(find(".interp-progress").hidden).toBe(true);
    expect(find(".interp-count").hidden).toBe(true);
    expect(text(".interp-foot")).toContain("L7H0recovery");
    expect(el.querySelectorAll("section")).toHaveLength(1);
  });

  it("says what is done before there is a cell, and counts the seconds while the kernel says nothing", async () => {
    const { host, text } = shown({ ...running, done: 0, share: 0, preparing: true });
    await settled();
    expect(text(".interp-count")).toBe("first the prompts are run unpatched · 1.3 s");
    await new Promise((resolve) => setTimeout(resolve, 1100));
    expect(text(".interp-count")).toMatch(/unpatched · 2\.[2-9] s$/);
    host.change("sweep", sweep({ ...running, done: 0, share: 0 }));
    expect(text(".interp-count")).toBe("comparing the first cells · 1.3 s");
  });

  it("says what the kernel says until the first cell is there", async () => {
    const { host, text } = shown({ ...running, done: 0, share: 0, preparing: true });
    host.change("said", "patch: running 16 prompts unpatched, 8/16 · 2 s");
    await settled();
    expect(text(".interp-count")).toBe("patch: running 16 prompts unpatched, 8/16 · 2 s");
    host.change("said", "patch: preparing, 20 forward passes · 3 s");
    expect(text(".interp-count")).toBe("patch: preparing, 20 forward passes · 3 s");
    host.change("sweep", sweep(running));
    expect(text(".interp-count")).toBe("3 of 12 cells · 1.3 s · about 3 s left");
  });

  it("that was stopped says so", async () => {
    const { text, find } = shown({ done: 3, share: 30 });
    await settled();
    expect(text(".interp-count")).toBe("3 of 12 cells · stopped");
    expect(find(".interp-progress").hidden).toBe(false);
  });

  it("is stopped by the front end's own interrupt, once, and only while it runs", async () => {
    const interrupt = vi.fn(() => Promise.resolve());
    const { host, named } = shown(running, { widget_manager: { kernel: { status: "busy", interrupt } } });
    await settled();
    named("Stop").click();
    expect(interrupt).toHaveBeenCalledTimes(1);
    expect(named("Stopping …").getAttribute("aria-disabled")).toBe("true");
    host.change("sweep", sweep());
    expect(named("Stopping …").hidden).toBe(true);
  });

  it("is not stopped once the kernel is idle: what is interrupted then is another cell", async () => {
    const interrupt = vi.fn(() => Promise.resolve());
    const { named } = shown(running, { widget_manager: { kernel: { status: "idle", interrupt } } });
    await settled();
    named("Stop").click();
    expect(interrupt).not.toHaveBeenCalled();
  });

  it("is VS Code's to stop, from the start: what a view asks for there is never heard", async () => {
    document.body.classList.add("vscode-dark");
    const interrupt = vi.fn();
    const { named, text } = shown(running, { widget_manager: { kernel: { status: "busy", interrupt } } });
    await settled();
    document.body.classList.remove("vscode-dark");
    expect(named("Stop").hidden).toBe(true);
    expect(text(".interp-panel .interp-caption")).toContain("to stop: the notebook’s Interrupt");
  });

  it("says who can stop it where a view cannot, or where stopping fails", async () => {
    const without = shown(running);
    await settled();
    expect(without.named("Stop").hidden).toBe(true);
    expect(without.text(".interp-panel .interp-caption")).toContain("to stop: the notebook’s Interrupt");
    const failing = { kernel: { status: "busy", interrupt: () => Promise.reject(new Error("no")) } };
    const other = shown(running, { widget_manager: failing });
    await settled();
    other.named("Stop").click();
    await settled();
    expect(other.named("Stopping …").hidden).toBe(true);
    expect(other.text(".interp-panel .interp-caption")).toContain("Interrupt");
  });
});

describe("the selection", () => {
  it("goes to the kernel in the model's numbers, by key and from the list", async () => {
    const { el, find, selects } = shown();
    await settled();
    expect(press(find(".interp-plot"), "ArrowDown").defaultPrevented).toBe(true);
    await settled();
    press(find(".interp-plot"), "ArrowDown");
    await settled();
    press(find(".interp-plot"), "ArrowDown");
    await settled();
    (el.querySelectorAll("[role=option]")[2] as HTMLElement).click();
    await settled();
    expect(selects()).toEqual([
      { layer: 7, head: 0 },
      { layer: 9, head: 0 },
      { layer: 4, head: 3 },
    ]);
    press(find(".interp-plot"), "Escape");
    await settled();
    expect(selects().at(-1)).toEqual({ layer: null, head: null });
  });

  it("follows the kernel, in step with the list, without answering", async () => {
    const { host, el, text, selects } = shown();
    await settled();
    host.change("selection", { layer: 7, head: 2, query: null, key: null, position: null });
    expect(text(".interp-foot")).toContain("L7H2recovery −0.250");
    const marked = [...el.querySelectorAll("[role=option]")].map((row) => row.getAttribute("aria-selected"));
    expect(marked).toEqual(["false", "true", "false"]);
    for (const other of [{ layer: 99, head: 1 }, { layer: 7 }, {}, null, "x"]) host.change("selection", other);
    await settled();
    expect(text(".interp-foot")).toContain("strongest of 12");
    expect(selects()).toEqual([]);
  });

  it("of keys' and values' heads names the layer alone", async () => {
    const { find, text, selects } = shown({ queries: false, head: " key head " });
    await settled();
    press(find(".interp-plot"), "ArrowDown");
    press(find(".interp-plot"), "ArrowRight");
    await settled();
    expect(selects()).toEqual([{ layer: 7 }]);
    expect(text(".interp-foot")).toContain("L7 key head 1");
  });

  it("storms reach the kernel as the first and the last", async () => {
    const { host, find, selects } = shown();
    await settled();
    const answer = host.answer;
    host.answer = (message) => (message.method === "select" ? undefined : answer?.(message));
    for (let i = 0; i < 99; i++) press(find(".interp-plot"), i % 2 ? "ArrowLeft" : "ArrowRight");
    expect(selects()).toHaveLength(1);
    host.answer = answer;
    host.deliver({ id: host.requests("select")[0]?.id, reply: {} });
    await settled();
    expect(selects()).toHaveLength(2);
  });
});

describe("what the patched model says", () => {
  it("is asked for with Enter and stands beside the unpatched", async () => {
    const { host, find, text } = shown();
    await settled();
    press(find(".interp-plot"), "Enter");
    expect(text(".interp-said")).toBe("L7H0 patched: asking the model …");
    await settled();
    expect(host.requests("says").map(({ params }) => params)).toEqual([{ layer: 1, head: 0 }]);
    expect(text(".interp-said")).toBe("L7H0 patched: what the model says×next tokenunpatchedpatched␣John0.1000.750");
  });

  it("shows the kernel's error beside the picture, until something else is chosen", async () => {
    const { host, find } = shown();
    await settled();
    host.answer = ({ id }) => [{ id, error: "the model is busy" }];
    press(find(".interp-plot"), "Enter");
    await settled();
    expect(find(".interp-error").textContent).toBe("the model is busy");
    expect(find(".interp-error").hidden).toBe(false);
    press(find(".interp-plot"), "ArrowRight");
    expect(find(".interp-error").hidden).toBe(true);
  });
});

describe("three axes", () => {
  const three: Partial<Sweep> = {
    axes: ["layer", "head", "position"],
    shape: [3, 4, 2],
    tokens: ["<bos>", "␣a"],
    named: true,
    top: { exact: [entry([1, 0, 1], 2)], estimate: [] },
    form: form({ own: "position", planes: ["effect", "low", "high", "index"] }),
    cells: packed(EFFECTS, blank(Number.NaN), blank(Number.NaN), blank(1)),
  };

  it("asks for the slice that is looked at, and for it again when the sweep has gone on", async () => {
    const { host, find, text } = shown(three);
    const answer = host.answer;
    const part = form({ hold: "layer", index: 1, axes: ["head", "position"], shape: [4, 2], planes: ["effect"] });
    part.labels = { rows: ["L7H0", "L7H1", "L7H2", "L7H3"], columns: ["<bos>", "␣a"], tokens: true, marked: [1] };
    host.answer = (message) =>
      message.method === "slice"
        ? [{ id: message.id, reply: { ...part } }, [Float32Array.from([0, 2, 0, 0, 0, 1, 0, 0]).buffer]]
        : answer?.(message);
    await settled();
    expect(text(".interp-foot")).toContain("L7H0 ␣a (1)");
    const select = find("select") as HTMLSelectElement;
    select.value = "layer";
    select.dispatchEvent(new Event("change"));
    await settled();
    expect(host.requests("slice").map(({ params }) => params)).toEqual([{ hold: "layer", index: 1 }]);
    expect(text(".interp-plot")).toContain("L7H3");
    press(find(".interp-plot"), "ArrowDown");
    press(find(".interp-plot"), "ArrowDown");
    await settled();
    press(find(".interp-plot"), "ArrowDown");
    await settled();
    expect(text(".interp-foot")).toContain("L7H2 ␣a (1)recovery +0.250");
    const asked = host.requests("slice").length;
    host.change("sweep", sweep({ ...three, done: 11 }));
    await settled();
    expect(host.requests("slice").length).toBe(asked + 1);
  });
});

describe("a view", () => {
  it("that is closed leaves nothing behind and says so", async () => {
    const { host, el, close } = shown();
    await settled();
    close();
    expect(host.count()).toBe(0);
    expect(el.childElementCount).toBe(0);
    expect(host.requests("views").map(({ params }) => params)).toEqual([{ count: 1 }, { count: 0 }]);
  });

  it("without a kernel shows what is here and offers nothing that needs one", async () => {
    const host = new Host({ sweep: sweep(), selection: {}, _style: "" });
    const el = document.createElement("div");
    mount().render({ model: host, el });
    await settled();
    expect(el.querySelector(".interp-frame")?.classList.contains("interp-live")).toBe(false);
    expect(el.querySelector(".interp-foot")?.textContent).toContain("L7H0");
  });
});

describe("drawing", () => {
  it("fits the room at every size", () => {
    for (const [rows, columns] of [
      [1, 1],
      [30, 9],
      [12, 12],
      [30, 60],
      [48, 64],
      [270, 1],
    ] as const) {
      for (const room of [240, 600, 1400]) {
        const cells = {
          values: new Float32Array(rows * columns),
          rows: Array.from({ length: rows }, (_, i) => `L${i}`),
          columns: Array.from({ length: columns }, (_, i) => `␣t${i}`),
          tokens: columns === 60,
          marked: [],
          block: 1,
        };
        const place = measure(cells, room);
        expect(place.width).toBeLessThanOrEqual(room);
        expect(place.down).toBeLessThanOrEqual(420);
        expect(Math.min(place.wide, place.high)).toBeGreaterThanOrEqual(0.5);
        const look: Theme = {
          name: "light",
          background: [255, 255, 255],
          empty: [238, 238, 238],
          hatch: [204, 0, 0],
          ink: "#000",
          muted: "#777",
          line: "#ccc",
          accent: "#00f",
        };
        expect(heat({ ...cells, values: cells.values.fill(1) }, 1, place, look)).toContain(diverging(look)(1));
      }
    }
  });

  it("writes numbers as the static pictures do", () => {
    const written = [0.5174, -3.1, 0, -2e-4, -2e-6, 1234.5, 2e7, Number.NaN, Number.NEGATIVE_INFINITY];
    expect(written.map(signed)).toEqual([
      "+0.517",
      "−3.100",
      "0",
      "−0.0002",
      "−2.0e−06",
      "+1,234.5",
      "+2.0e07",
      "not a number",
      "−∞",
    ]);
    expect(columnsOf("ab漢")).toBe(4);
  });
});
