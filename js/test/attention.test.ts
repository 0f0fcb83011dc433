import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Selected } from "../src/attention/meta";
import { colour, sequential } from "../src/draw/colours";
import { attention, fakeCanvas, type Host, open, press, settled } from "./host";

const TOKENS = ["<bos>", "␣the", "␣cat", "␣sat"];
let drawn: ReturnType<typeof fakeCanvas>;

beforeEach(() => {
  drawn = fakeCanvas();
});
afterEach(() => {
  vi.restoreAllMocks();
  document.body.replaceChildren();
});

const tokens = (el: HTMLElement) => [...el.querySelectorAll<HTMLElement>(".interp-text > span")];
const selects = (host: Host) => host.requests("select").map(({ params }) => params as Selected);
const text = (el: HTMLElement) => el.textContent?.replace(/\s+/g, " ") ?? "";

describe("the viewer", () => {
  it("shows every head, the chosen one's name and numbers, and the text", async () => {
    const { el, find } = open(attention(TOKENS));
    await settled();
    expect(text(find(".interp-head"))).toContain("test · 4 tokens · 2 layers × 3 heads");
    expect(text(find(".interp-foot"))).toContain("L0H0inductionmean entropy 0.69 nats");
    expect(tokens(el).map((token) => token.textContent)).toEqual(TOKENS);
    expect(drawn.images.filter(({ width }) => width > 10).length).toBeGreaterThanOrEqual(7);
  });

  it("begins with what the last token looks at, and holds none once one was let go of", async () => {
    const host = attention(TOKENS);
    const { el, find } = open(host);
    await settled();
    const held = () => tokens(el).findIndex((token) => token.classList.contains("interp-held"));
    expect(held()).toBe(3);
    expect(text(find(".interp-wide"))).toContain("Text: what ␣sat (3) looks at");
    expect(selects(host)).toEqual([]); // other views stay where they are
    tokens(el)[1]?.click();
    expect(held()).toBe(1);
    tokens(el)[1]?.click();
    await settled();
    expect(held()).toBe(-1);
  });

  it("writes hostile tokens as text only", async () => {
    const hostile = ["</script><script>window.bad=1</script>", "<img src=x onerror=window.bad=1>", '"><b>', "&amp;"];
    const host = attention(hostile);
    Object.assign(host.traits.meta as object, {
      model: "<img src=x onerror=window.bad=1>",
      labels: { "0.0": "<b>x</b>" },
    });
    Object.assign(host.traits.meta as object, { notes: ["<i>n</i>"], glyphs: { 1: '"><b>' } });
    const { el, find } = open(host);
    await settled();
    tokens(el)[1]?.click();
    (find(".interp-data") as HTMLDetailsElement).open = true;
    find(".interp-data").dispatchEvent(new Event("toggle"));
    await settled();
    expect(el.querySelector("script, img, b b, i, b > b")).toBeNull();
    expect(tokens(el).map((token) => token.textContent)).toEqual(hostile);
    expect(el.querySelectorAll("td").length).toBeGreaterThan(4);
    expect((window as unknown as { bad?: number }).bad).toBeUndefined();
  });

  it("asks for the head that is looked at, and for no other", async () => {
    const host = attention(TOKENS);
    open(host);
    await settled();
    expect(host.requests("head").map(({ params }) => params)).toEqual([{ layer: 0, head: 0, mode: "pattern" }]);
    host.change("selection", { layer: 1, head: 2, query: null, key: null, position: null });
    host.change("selection", { layer: 0, head: 0, query: null, key: null, position: null });
    await settled();
    expect(host.requests("head")).toHaveLength(2);
  });

  it("shows the kernel's error beside the picture, until something else is chosen", async () => {
    const host = attention(TOKENS);
    const answer = host.answer;
    host.answer = (message) =>
      message.method === "atlas" ? [{ id: message.id, error: "the model is busy" }] : answer?.(message);
    const { el, find } = open(host);
    await settled();
    const weighted = [...el.querySelectorAll("button")].find((b) => b.textContent === "Value-weighted");
    weighted?.click();
    await settled();
    expect(find(".interp-error").textContent).toBe("the model is busy");
    expect(find(".interp-error").hidden).toBe(false);
    expect(weighted?.getAttribute("aria-pressed")).toBe("false");
    press(find("canvas"), "ArrowRight");
    expect(find(".interp-error").hidden).toBe(true);
  });

  it("asks for value norms when they are wanted, once", async () => {
    const host = attention(TOKENS);
    const { el } = open(host);
    await settled();
    expect(host.requests("atlas")).toHaveLength(0);
    const [pattern, weighted] = [...el.querySelectorAll("button")].slice(0, 2);
    for (const button of [weighted, pattern, weighted]) {
      button?.click();
      await settled();
    }
    expect(host.requests("atlas")).toHaveLength(1);
    expect(host.requests("head").map(({ params }) => (params as { mode: string }).mode)).toEqual([
      "pattern",
      "weighted",
    ]);
  });

  it("without a kernel shows what is here and disables what needs one", async () => {
    const host = attention(TOKENS);
    host.answer = () => undefined;
    const { el, find } = open(host);
    await settled();
    const weighted = [...el.querySelectorAll("button")].find((b) => b.textContent === "Value-weighted");
    expect(weighted?.getAttribute("aria-disabled")).toBe("true");
    expect(find(".interp-menu").style.visibility).toBe("hidden");
    press(find("canvas"), "ArrowDown");
    expect(text(find(".interp-foot"))).toContain("L1H0");
    tokens(el)[3]?.click();
    expect(text(find(".interp-readout"))).toContain("≈ 0.500");
  });

  it("saves the kernel's picture of what it shows", async () => {
    const host = attention(TOKENS);
    const answer = host.answer;
    host.answer = (message) =>
      message.method === "picture" ? [{ id: message.id, reply: { svg: "<svg/>" } }] : answer?.(message);
    const { el, find } = open(host);
    await settled();
    expect(find(".interp-menu").hidden).toBe(false);
    press(find("canvas"), "ArrowDown");
    tokens(el)[2]?.click();
    const saved: { name: string; url: string }[] = [];
    vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
      saved.push({ name: this.download, url: this.href });
    });
    [...el.querySelectorAll("button")].find((b) => b.textContent === "Drawing (SVG)")?.click();
    await settled();
    expect(host.requests("picture").map(({ params }) => params)).toEqual([
      { layer: 1, head: 0, mode: "pattern", token: 2, theme: "light" },
    ]);
    expect(saved).toEqual([{ name: "attention-L1H0.svg", url: "data:image/svg+xml;base64,PHN2Zy8+" }]);
  });

  it("says of a rounded weight that is no number what it is", async () => {
    const host = attention(TOKENS);
    const [cells] = [new Uint8Array(10).fill(127)];
    cells[8] = 255; // of the last row, the third
    host.answer = ({ id, method }) =>
      method === "head"
        ? [{ id, reply: { side: 4, type: "u1", triangle: true, scale: 1 } }, [cells.buffer]]
        : [{ id, reply: {} }];
    const { find } = open(host);
    await settled();
    host.change("selection", { layer: 0, head: 0, query: 3, key: 2, position: 3 });
    expect(text(find(".interp-readout"))).toContain("not a number");
  });

  it("says exact numbers once they are here", async () => {
    const { el, find } = open(attention(TOKENS));
    await settled();
    tokens(el)[3]?.click();
    await settled();
    expect(text(find(".interp-readout"))).toBe("␣sat (3) most at <bos> (0)0.500");
  });
});

describe("the text", () => {
  it("is coloured by what the held token looks at, or by who looks at it", async () => {
    const { el } = open(attention(TOKENS));
    await settled();
    tokens(el)[2]?.click();
    await settled();
    const table = sequential({ background: [255, 255, 255], name: "light" });
    const half = `rgb(${[...colour(table, 0.5)].join(",")})`;
    const fills = () => tokens(el).map((token) => token.style.background.replaceAll(" ", ""));
    expect(fills()).toEqual([half, "", half, ""]);
    [...el.querySelectorAll("button")].find((b) => b.textContent === "looked at by")?.click();
    tokens(el)[0]?.click();
    await settled();
    expect(fills()).toEqual([`rgb(${[...colour(table, 1)].join(",")})`, half, half, half]);
  });

  it("leaves out the first token where it is hidden, and rescales", async () => {
    const { el, find } = open(attention(TOKENS));
    await settled();
    tokens(el)[2]?.click();
    const box = find("input[type=checkbox]") as HTMLInputElement;
    box.checked = true;
    box.dispatchEvent(new Event("change"));
    await settled();
    const full = `rgb(${[...colour(sequential({ background: [255, 255, 255], name: "light" }), 1)].join(",")})`;
    expect(tokens(el).map((token) => token.style.background.replaceAll(" ", ""))).toEqual(["", "", full, ""]);
    expect(text(el)).toContain("first token hidden · scale to 0.50");
    expect(text(find(".interp-readout"))).toContain("most at ␣cat (2)");
  });

  it("shows a long token in full while it is held", async () => {
    const host = attention(["<bos>", "lo…ng", "cat"]);
    (host.get("meta") as { long: number[] }).long = [1];
    const answer = host.answer;
    host.answer = (message) =>
      message.method === "token" ? [{ id: message.id, reply: { text: "<b>looong" } }] : answer?.(message);
    const { el } = open(host);
    await settled();
    expect(host.requests("token")).toEqual([]);
    tokens(el)[1]?.click();
    await settled();
    expect(tokens(el)[1]?.textContent).toBe("<b>looong");
    expect(el.querySelector(".interp-text b")).toBeNull();
    tokens(el)[2]?.click();
    await settled();
    expect(tokens(el)[1]?.textContent).toBe("lo…ng");
    expect(host.requests("token").map(({ params }) => params)).toEqual([{ position: 1 }]);
  });

  it("holds a token by click and by key, and lets go", async () => {
    const host = attention(TOKENS);
    const { el, find } = open(host);
    await settled();
    tokens(el)[2]?.click();
    await settled();
    press(find(".interp-text"), "ArrowLeft");
    await settled();
    press(find(".interp-text"), "Escape");
    await settled();
    const held = selects(host).map((params) => params.query);
    expect(held).toEqual([2, 1, null]);
    expect(tokens(el).every((token) => token.getAttribute("aria-selected") === "false")).toBe(true);
  });
});

describe("the selection", () => {
  it("goes to the kernel from the keyboard, in the model's numbers", async () => {
    const host = attention(TOKENS, [5, 8], [2, 7]);
    const { find } = open(host);
    await settled();
    const event = press(find(".interp-heads canvas"), "ArrowRight");
    expect(event.defaultPrevented).toBe(true);
    await settled();
    press(find(".interp-heads canvas"), "ArrowDown");
    await settled();
    press(find(".interp-heads canvas"), "ArrowDown");
    await settled();
    expect(selects(host).map((params) => [params.layer, params.head])).toEqual([
      [5, 7],
      [8, 7],
    ]);
  });

  it("moves through the matrix, and not into the future", async () => {
    const host = attention(TOKENS);
    const { find } = open(host);
    await settled();
    const canvas = find(".interp-box > canvas");
    for (const key of ["ArrowUp", "ArrowUp", "ArrowLeft", "ArrowRight", "ArrowRight", "End"]) {
      press(canvas, key);
      await settled();
    }
    const cells = selects(host).map((params) => [params.query, params.key]);
    expect(cells).toEqual([
      [3, 3],
      [2, 2],
      [2, 1],
      [2, 2],
    ]);
    expect(press(canvas, "q").defaultPrevented).toBe(false);
  });

  it("follows the kernel, without answering", async () => {
    const host = attention(TOKENS);
    const { el, find } = open(host);
    await settled();
    host.change("selection", { layer: 1, head: 2, query: 3, key: 1, position: 3 });
    await settled();
    expect(text(find(".interp-foot"))).toContain("L1H2");
    expect(tokens(el)[3]?.getAttribute("aria-selected")).toBe("true");
    expect((find("select") as HTMLSelectElement).value).toBe("1");
    expect(selects(host)).toEqual([]);
  });

  it("that this view does not hold leaves it", async () => {
    const host = attention(TOKENS);
    const { find } = open(host);
    await settled();
    for (const selection of [{ layer: 9, head: 1, query: 99 }, null, "x", { layer: "1" }, {}]) {
      host.change("selection", selection);
      await settled();
    }
    expect(text(find(".interp-foot"))).toContain("L0H1");
  });

  it("storms reach the kernel as the first and the last", async () => {
    const host = attention(TOKENS);
    const answer = host.answer;
    host.answer = (message) => (message.method === "select" ? undefined : answer?.(message));
    const { el, find } = open(host);
    await settled();
    for (let i = 0; i < 999; i++) press(find(".interp-heads canvas"), i % 2 ? "ArrowLeft" : "ArrowRight");
    expect(host.requests("select")).toHaveLength(1);
    // What comes in meanwhile is the echo of a choice that is older than what is shown.
    host.change("selection", { layer: 1, head: 0, query: null, key: null, position: null });
    expect(text(find(".interp-foot"))).toContain("L0H1");
    host.answer = answer;
    host.deliver({ id: host.requests("select")[0]?.id, reply: {} });
    await settled();
    expect(selects(host)).toHaveLength(2);
    expect(selects(host)[1]).toMatchObject({ layer: 0, head: 1 });
    expect(tokens(el)).toHaveLength(4);
  });

  it("of one view is the selection of its second view", async () => {
    const host = attention(TOKENS);
    const [one, two] = [open(host), open(host)];
    await settled();
    press(one.find(".interp-heads canvas"), "ArrowRight");
    host.change("selection", { layer: 0, head: 1, query: null, key: null, position: null });
    await settled();
    expect(text(two.find(".interp-foot"))).toContain("L0H1");
    expect(selects(host)).toHaveLength(1);
  });
});

describe("a view that is closed", () => {
  it("leaves nothing behind and says so", async () => {
    const host = attention(TOKENS);
    const { el, close } = open(host);
    await settled();
    expect(host.count()).toBeGreaterThan(0);
    expect(host.requests("views").map(({ params }) => params)).toEqual([{ count: 1 }]);
    const removed = vi.spyOn(MutationObserver.prototype, "disconnect");
    close();
    expect(host.count()).toBe(0);
    expect(el.childElementCount).toBe(0);
    expect(removed).toHaveBeenCalled();
    expect(host.requests("views").at(-1)?.params).toEqual({ count: 0 });
    const before = drawn.images.length;
    host.change("selection", { layer: 1, head: 1, query: null, key: null, position: null });
    await settled();
    expect(drawn.images).toHaveLength(before);
  });

  it("closes quietly where the comm is gone", async () => {
    const host = attention(TOKENS);
    const { close } = open(host);
    await settled();
    host.send = () => {
      throw new Error("closed");
    };
    expect(close).not.toThrow();
  });
});
