import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { weights } from "../../src/interp/views/kit/palette.json";
import mount from "../src/feature/index";
import { brief, type Feature, unpack } from "../src/feature/meta";
import { strengthOf } from "../src/feature/steer";
import type { Message } from "../src/host/model";
import { fakeCanvas, Host, press, settled } from "./host";

const TOKENS = ["␣and", "␣Mary", "␣gave"];
// Tenth 10 has three places, 9 and 2 have one; 0 is an input that was found.
const TENTHS = [0, 10, 10, 10, 9, 2];
const COUNTS = [10, 0, 20, 60, 10];
const EDGES = [0.5, 1, 1.5, 2, 3, 4];

beforeEach(() => fakeCanvas() as never);
afterEach(() => {
  vi.restoreAllMocks();
  document.body.replaceChildren();
});

function feature(given: Partial<Feature> = {}): Feature {
  return {
    title: "Feature 1.7",
    facts: "test · 30 texts",
    about: { model: "test", feature: "1.7", density: 0.05 },
    own: [
      [
        ["label", 272, 18, '<text class="interp-t">a name</text>'],
        ["active at 5 % of tokens", 272, 90, '<rect class="bar" width="9" height="9"/>'],
      ],
      [["logits it moves", 272, 20, "<g/>"]],
    ],
    lists: [[["reads tokens (cosine)", 200, 20, '<text class="interp-m">␣Mary</text>']]],
    bars: [COUNTS.length, 272, 74],
    most: 4,
    places: TENTHS.map((tenth, i) => ({
      tokens: TOKENS,
      peak: 1,
      tenth,
      times: i === 2 ? 3 : 1,
      text: tenth ? i : -1,
      position: 10 + i,
    })),
    opens: [
      ["an input found by gradients", 0],
      ["strongest tenth of its activations", 1],
      ["", 2],
      ["one from each of the other tenths", 4],
      ["", 5],
    ],
    steer: { caption: "steer", prompt: "When Mary", unit: 2, active: true, opens: 400, range: [-1000, 1000, 50] },
    strongest: [["strongest: ␣Mary in text 1, position 11 ", "4", true]],
    key: [["colour: activation over the largest"]],
    notes: ["a note"],
    ...given,
  };
}

function numbers(places = TENTHS.length, counts = COUNTS, edges = EDGES): DataView {
  const around = Array.from({ length: places }, (_, i) => [i === 5 ? Number.NaN : 0, 4 - i / 2, 0.123456]).flat();
  const values = [...Array.from({ length: places }, (_, i) => 4 - i / 2), ...around];
  const parts = [Float32Array.from(edges), Uint32Array.from(counts), Float32Array.from(values)];
  // A message's bytes need not begin where a number may.
  const data = new Uint8Array(1 + parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 1;
  for (const part of parts) {
    data.set(new Uint8Array(part.buffer), at);
    at += part.byteLength;
  }
  return new DataView(data.buffer, 1);
}

const SAID = {
  strength: 8,
  added: 8,
  stream: 24,
  prompt: "When Mary",
  texts: [
    [" and", " John", ""],
    [" and", " Bob", "the context window is full"],
  ],
  tokens: [
    ["␣Bob", 0.1, 0.75],
    ["␣John", 0.5, null],
  ],
};

function open(given: Partial<Feature> = {}, data = numbers()) {
  const host = new Host({ feature: feature(given), numbers: data, selection: {}, _style: "" });
  const answers: { error?: string } = {};
  host.answer = ({ id, method, cancel }: Message) => {
    if (cancel) return undefined;
    if (method === "steer") return [answers.error ? { id, error: answers.error } : { id, reply: SAID }];
    if (method === "picture") return [{ id, reply: { svg: "<svg xmlns='http://www.w3.org/2000/svg'/>" } }];
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
  const tenth = (name: string) => {
    const all = [...el.querySelectorAll<HTMLElement>(".interp-segmented button")];
    return all.find((one) => one.textContent === name) as HTMLElement;
  };
  return {
    host,
    el,
    find,
    tenth,
    answers,
    close: () => ends.abort(),
    rows: () => [...el.querySelectorAll<HTMLElement>(".interp-row")],
    said: () => find(".interp-foot [role=status]").textContent ?? "",
  };
}

describe("the numbers", () => {
  it("are read by place, and each bar knows its tenths", () => {
    const { bars, places } = unpack(feature(), numbers());
    expect(places.map((one) => one.activation)).toEqual([4, 3.5, 3, 2.5, 2, 1.5]);
    expect([...(places[1]?.around ?? [])]).toEqual([0, 3.5, Math.fround(0.123456)]);
    expect(bars.map((bar) => bar.count)).toEqual(COUNTS);
    expect(bars.map((bar) => [bar.from, bar.to])).toEqual(EDGES.slice(1).map((to, i) => [EDGES[i], to]));
    expect(bars.map((bar) => [bar.low, bar.high])).toEqual([
      [1, 1],
      [2, 2],
      [2, 3],
      [4, 9],
      [10, 10],
    ]);
    expect(bars.map((bar) => bar.tenth)).toEqual([1, 2, 3, 7, 10]);
  });

  it("are written in three digits", () => {
    expect([0.12345, 12.3, 2, -1.006, 1234].map(brief)).toEqual(["0.123", "12.3", "2", "−1.01", "1230"]);
  });

  it("say how strong a direction is, in its own units and in the feature's", () => {
    const steer = feature().steer as NonNullable<Feature["steer"]>;
    expect([400, -50, 0].map((percent) => strengthOf(steer, percent))).toEqual([
      "+8 = 4 × its largest",
      "−1 = −0.5 × its largest",
      "0: as it is",
    ]);
    expect(strengthOf({ ...steer, active: false }, 400)).toBe("+8");
  });
});

describe("the dashboard", () => {
  it("opens as the picture, and ends with all it has put on", () => {
    const view = open();
    expect(view.rows().length).toBe(5);
    expect([...view.el.querySelectorAll(".interp-head-of")].map((one) => one.textContent)).toEqual([
      "strongest tenth of its activations",
      "one from each of the other tenths",
    ]);
    expect(view.find(".interp-places .interp-caption").textContent).toContain("an input found by gradients");
    expect(view.find(".interp-row [role=option]").textContent).toBe("␣and");
    expect(view.rows()[2]?.textContent).toContain("×3");
    expect(view.el.querySelectorAll(".interp-drawn svg").length).toBe(4);
    expect(view.said()).toBe("strongest: ␣Mary in text 1, position 11 4");
    expect(view.find(".interp-note").textContent).toBe("a note");
    view.close();
    expect(view.el.querySelector("section")).toBeNull();
    expect(view.host.count()).toBe(0);
  });

  it("colours tokens, the largest as the picture does, and names the steps of the scale", () => {
    const view = open();
    const [first, peak, faint] = [...view.find(".interp-row").querySelectorAll<HTMLElement>("[role=option]")];
    expect(first?.style.background).toBe("");
    const top = view.find("section").style.getPropertyValue(`--interp-s${weights.levels}`);
    expect(peak?.style.background.replaceAll(" ", "")).toBe(top);
    expect(faint?.style.background).not.toBe("");
    expect(view.find("section").style.getPropertyValue("--interp-s0")).toBe("rgb(255,255,255)");
  });

  it("shows the places of a tenth, and all again", () => {
    const view = open();
    expect([...view.el.querySelectorAll(".interp-segmented button")].map((one) => one.textContent)).toEqual([
      "all",
      "10",
      "9",
      "2",
    ]);
    view.tenth("10").click();
    expect(view.rows().length).toBe(3);
    expect(view.tenth("10").getAttribute("aria-pressed")).toBe("true");
    expect(view.find(".interp-places .interp-caption span").textContent).toBe(
      "strongest tenth of its activations: 3 places",
    );
    view.tenth("2").click();
    expect(view.find(".interp-places .interp-caption span").textContent).toBe("tenth 2 of its activations: 1 place");
    view.tenth("all").click();
    expect(view.rows().length).toBe(5);
  });

  it("lets keys choose a bar: the places of its tenth", () => {
    const view = open();
    const bars = view.find("[role=slider]");
    expect(bars.getAttribute("aria-valuetext")).toBe("all");
    press(bars, "End");
    expect(view.said()).toBe("10 activations from 3 to 4, in tenth 10");
    expect(bars.getAttribute("aria-valuetext")).toBe(view.said());
    expect(bars.getAttribute("aria-valuenow")).toBe("5");
    expect(view.rows().length).toBe(3);
    expect(view.el.querySelectorAll(".interp-of-tenth, .interp-ring").length).toBe(2);
    press(bars, "ArrowLeft");
    expect(view.said()).toBe("60 activations from 2 to 3, in tenths 4 to 9");
    press(bars, "Home");
    press(bars, "ArrowRight");
    expect(view.said()).toBe("0 activations from 1 to 1.5");
    press(bars, "Escape");
    expect(view.rows().length).toBe(5);
    expect(view.el.querySelector(".interp-of-tenth")).toBeNull();
    expect(view.said()).toContain("strongest:");
  });

  it("says the bar under the pointer", () => {
    const view = open();
    const bars = view.find("[role=slider]");
    const svg = { left: 10, width: 272 } as DOMRect;
    vi.spyOn(Element.prototype, "getBoundingClientRect").mockReturnValue(svg);
    bars.dispatchEvent(new MouseEvent("pointermove", { clientX: 10 + 272 * 0.7 }));
    expect(view.said()).toContain("60 activations");
    bars.dispatchEvent(new MouseEvent("pointerleave"));
    expect(view.said()).toContain("strongest:");
    bars.dispatchEvent(new MouseEvent("click", { clientX: 281 }));
    expect(view.said()).toContain("in tenth 10");
    bars.dispatchEvent(new MouseEvent("click", { clientX: 281 }));
    expect(view.said()).toContain("strongest:");
  });

  it("says a held token's activation exactly", () => {
    const view = open();
    const list = view.find("[role=listbox]");
    press(list, "ArrowDown");
    expect(view.said()).toContain("␣Maryactivation 4.000100 % of its largest");
    expect(view.said()).not.toContain("text");
    press(list, "ArrowDown");
    expect(view.said()).toBe("␣Maryactivation 3.50088 % of its largesttext 1, position 11in tenth 10");
    press(list, "ArrowRight");
    expect(view.said()).toBe("␣gaveactivation 0.1233 % of its largesttext 1, position 12");
    const held = view.find(".interp-held");
    expect(list.getAttribute("aria-activedescendant")).toBe(held.id);
    expect(held.getAttribute("aria-selected")).toBe("true");
    press(list, "ArrowRight");
    expect(view.said(), "there is no more").toContain("␣gave");
    press(list, "ArrowUp");
    press(list, "ArrowUp");
    expect(view.said()).toContain("activation 4.000");
    view.rows()[4]?.querySelector<HTMLElement>("[role=option]")?.click();
    expect(view.said()).toBe("␣andbegins the text, and is left outtext 5, position 14");
    press(list, "Escape");
    expect(view.el.querySelector(".interp-held")).toBeNull();
    expect(list.hasAttribute("aria-activedescendant")).toBe(false);
  });

  it("lets go of a token that is no longer shown", () => {
    const view = open();
    press(view.find("[role=listbox]"), "ArrowDown");
    view.tenth("9").click();
    expect(view.said()).toContain("strongest:");
  });

  it("has tables of what is shown", () => {
    const view = open();
    view.tenth("10").click();
    const table = view.find("details.interp-data") as HTMLDetailsElement;
    expect(table.querySelector("table")).toBeNull();
    table.open = true;
    table.dispatchEvent(new Event("toggle"));
    const rows = [...table.querySelectorAll("tbody tr")].map((row) => [...row.children].map((one) => one.textContent));
    expect(rows[0]).toEqual(["3.500", "10", "␣Mary", "1", "11", "1", TOKENS.join("")]);
    expect(rows.length).toBe(3 + COUNTS.length);
    expect(rows.at(-1)).toEqual(["3.000", "4.000", "10"]);
  });

  it("shows a feature that is never active, and one that has no direction", () => {
    const none: Partial<Feature> = { places: [], opens: [], strongest: [], bars: [0, 272, 74], steer: null };
    const view = open({ ...none, own: [[["no label", 272, 18, "<g/>"]]] }, numbers(0, [], [0]));
    expect(view.el.querySelector("[role=listbox], [role=slider], .interp-steer")).toBeNull();
    expect(view.said()).toBe("");
  });

  it("shows markup in a token as text", () => {
    const named = feature().places.map((one) => ({
      ...one,
      tokens: ["<b>", "<img src=x onerror=alert(1)>", "</section>"],
    }));
    const view = open({ places: named });
    expect(view.el.querySelector("b.x, img")).toBeNull();
    expect(view.rows()[0]?.textContent).toContain("<img src=x");
  });
});

describe("steering", () => {
  const field = (view: ReturnType<typeof open>) => view.find("textarea") as HTMLTextAreaElement;
  const slider = (view: ReturnType<typeof open>) => view.find(".interp-steer input") as HTMLInputElement;
  const go = (view: ReturnType<typeof open>) => view.find(".interp-ask button");

  it("asks the kernel, and shows both texts and next tokens", async () => {
    const view = open();
    await settled();
    expect(field(view).value).toBe("When Mary");
    expect(view.host.requests("steer")).toEqual([]);
    field(view).value = "When Bob";
    go(view).click();
    expect(view.find(".interp-answer").textContent).toContain("asking the model");
    expect(view.host.requests("steer").map((one) => one.params)).toEqual([{ prompt: "When Bob", percent: 400 }]);
    await settled();
    const texts = [...view.el.querySelectorAll(".interp-written")].map((one) => one.textContent);
    expect(texts).toEqual(["When Mary and John", "When Mary and Bob"]);
    expect([...view.el.querySelectorAll(".interp-written b")].map((one) => one.textContent)).toEqual([" John", " Bob"]);
    const answer = view.find(".interp-answer").textContent ?? "";
    expect(answer).toContain("with +8 of it");
    expect(answer).toContain("the context window is full");
    expect(answer).toContain("adds a vector 8 long at every token, where the stream is 24 long");
    const rows = [...view.el.querySelectorAll(".interp-next [role=row]")].map((row) =>
      [...row.children].map((one) => one.textContent),
    );
    expect(rows.slice(1)).toEqual([
      ["␣Bob", "0.100", "0.750"],
      ["␣John", "0.500", "–"],
    ]);
  });

  it("asks again for another strength once it was asked, and not before", async () => {
    const view = open();
    const move = (value: number) => {
      slider(view).value = `${value}`;
      slider(view).dispatchEvent(new Event("input"));
      slider(view).dispatchEvent(new Event("change"));
    };
    move(-100);
    expect(view.find(".interp-size").textContent).toBe("−2 = −1 × its largest");
    expect(slider(view).getAttribute("aria-valuetext")).toBe("−2 = −1 × its largest");
    expect(view.host.requests("steer")).toEqual([]);
    press(field(view), "Enter");
    await settled();
    move(200);
    await settled();
    expect(view.host.requests("steer").map((one) => (one.params as Message).percent)).toEqual([-100, 200]);
  });

  it("says in a line that the model is busy, and takes the next answer", async () => {
    const view = open();
    view.answers.error = "test is busy; try again when the cell has finished";
    go(view).click();
    await settled();
    expect(view.find(".interp-answer [role=alert]").textContent).toBe(view.answers.error);
    delete view.answers.error;
    go(view).click();
    await settled();
    expect(view.el.querySelector(".interp-answer [role=alert]")).toBeNull();
    expect(view.el.querySelectorAll(".interp-written").length).toBe(2);
  });

  it("is saved with what is shown", async () => {
    const view = open();
    view.tenth("9").click();
    go(view).click();
    await settled();
    const clicked: string[] = [];
    vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
      clicked.push(this.href);
    });
    const entry = [...view.el.querySelectorAll<HTMLElement>(".interp-menu button")].find((one) =>
      one.textContent?.includes("JSON"),
    );
    entry?.click();
    await settled();
    const data = JSON.parse(
      new TextDecoder().decode(Uint8Array.from(atob(clicked[0]?.split(",")[1] ?? ""), (c) => c.charCodeAt(0))),
    );
    expect(data.feature).toBe("1.7");
    expect(data.exemplars.map((one: { tenth: number }) => one.tenth)).toEqual([9]);
    expect(data.exemplars[0].activations).toEqual([0, 2, Math.fround(0.123456)]);
    expect(data.histogram.length).toBe(5);
    expect(data.steered.texts).toEqual(SAID.texts);
  });
});
