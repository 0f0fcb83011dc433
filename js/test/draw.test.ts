import { describe, expect, it } from "vitest";
import { weights } from "../../src/interp/views/kit/palette.json";
import { binOf, binStart, decode, square } from "../src/draw/codec";
import { colour, ink, luminance, type Rgb, sequential } from "../src/draw/colours";
import { mask, pixels } from "../src/draw/heatmap";
import { escaped, tag } from "../src/draw/svg";
import { fitted } from "../src/ui/dom";
import { textUrl } from "../src/ui/download";

const WHITE: Rgb = [255, 255, 255];
const theme = {
  table: sequential({ background: WHITE, name: "light" }),
  background: WHITE,
  empty: [240, 240, 241] as Rgb,
  hatch: [9, 9, 9] as Rgb,
};
const at = (data: Uint8ClampedArray, size: number, x: number, y: number) => [
  ...data.slice(4 * (y * size + x), 4 * (y * size + x) + 3),
];

describe("a heatmap", () => {
  it("shows each value through the colour table", () => {
    const values = Float32Array.from({ length: 25 }, (_, i) => i / 24);
    const data = pixels({ values, rows: 5, factor: 1 }, 20, theme);
    for (let y = 0; y < 20; y++) {
      for (let x = 0; x < 20; x++) {
        const value = values[Math.floor(y / 4) * 5 + Math.floor(x / 4)] ?? 0;
        expect(at(data, 20, x, y)).toEqual([...colour(theme.table, value)]);
      }
    }
    expect(data.filter((_, i) => i % 4 === 3).every((alpha) => alpha === 255)).toBe(true);
  });

  it("keeps a line that is thinner than a pixel", () => {
    const values = new Float32Array(300 * 300);
    for (let i = 0; i < 300; i++) {
      values[i * 300 + i] = 1;
      values[i * 300] = 1;
    }
    const data = pixels({ values, rows: 300, factor: 1 }, 64, theme);
    for (let i = 0; i < 64; i++) {
      expect(at(data, 64, i, i)).toEqual([...colour(theme.table, 1)]);
      expect(at(data, 64, 0, i)).toEqual([...colour(theme.table, 1)]);
    }
    expect(at(data, 64, 40, 3)).toEqual([...WHITE]);
  });

  it("separates cells by gaps, and tells what is not there from 0", () => {
    const data = pixels({ values: [0, 1, 1, 0], rows: 2, factor: 1, masked: mask(true, false) }, 10, theme, 1);
    expect(at(data, 10, 0, 0)).toEqual([...WHITE]);
    expect(at(data, 10, 7, 0)).toEqual([...theme.empty]);
    expect(at(data, 10, 0, 7)).toEqual([...colour(theme.table, 1)]);
    expect(at(data, 10, 0, 4)).toEqual([...WHITE]);
    expect(at(data, 10, 4, 7)).toEqual([...WHITE]);
  });

  it("hatches what is not a number, and what it is pooled with", () => {
    for (const broken of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const data = pixels({ values: [0, broken, 0.5, 1], rows: 2, factor: 1 }, 1, theme);
      expect(at(data, 1, 0, 0)).toEqual([...theme.hatch]);
      const large = pixels({ values: [0, broken, 0.5, 1], rows: 2, factor: 1 }, 24, theme);
      const seen = new Set(Array.from({ length: 12 }, (_, x) => `${at(large, 24, 12 + x, 3)}`));
      expect(seen).toEqual(new Set([`${theme.hatch}`, `${WHITE}`]));
    }
  });

  it("hides the first token's column only where asked", () => {
    expect(mask(false, false)).toBeUndefined();
    expect(mask(false, true)?.(3, 0)).toBe(true);
    expect(mask(false, true)?.(3, 5)).toBe(false);
    expect(mask(true, true)?.(3, 5)).toBe(true);
  });
});

describe("a drawing's room", () => {
  it("keeps its form where there is less, and its size where there is more", () => {
    expect(fitted([400, 200], 100)).toEqual([100, 50]);
    expect(fitted([400, 200], 1000)).toEqual([400, 200]);
  });
});

describe("colours", () => {
  it("start at the background, end far from it, and never turn back", () => {
    for (const [background, dark] of [
      [WHITE, false],
      [[30, 31, 34], true],
    ] as const) {
      const table = sequential({ background: background, name: dark ? "dark" : "light" });
      expect([...colour(table, 0)]).toEqual([...background]);
      const lights = Array.from({ length: 256 }, (_, i) => luminance(colour(table, i / 255)));
      const steps = lights.slice(1).map((light, i) => (light - (lights[i] ?? 0)) * (dark ? 1 : -1));
      expect(Math.min(...steps)).toBeGreaterThan(-0.002);
      expect(Math.abs((lights[255] ?? 0) - (lights[0] ?? 0))).toBeGreaterThan(0.7);
    }
  });

  it("lift small weights as stated", () => {
    const table = sequential({ background: [0, 0, 0], name: "light" });
    const step = 0.25 ** (1 / weights.power);
    expect(colour(table, step)[0]).toBeGreaterThan(200);
  });

  it("are written on in what reads", () => {
    const contrast = (a: number, b: number) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    for (const dark of [false, true]) {
      const table = sequential({ background: dark ? [30, 31, 34] : WHITE, name: dark ? "dark" : "light" });
      for (let i = 0; i < 256; i++) {
        const fill = colour(table, i / 255);
        const text = ink(fill) === "#fff" ? 1 : 0;
        expect(contrast(luminance(fill), text)).toBeGreaterThan(4.5);
      }
    }
  });
});

describe("bytes", () => {
  it("of float16, float32 and uint8 are read", () => {
    const halves = new Uint8Array(new Uint16Array([0x3c00, 0x3800, 0, 1, 0xbc00, 0x7e00, 0x7c00]).buffer);
    expect([...decode(halves, "f2")]).toEqual([1, 0.5, 0, 2 ** -24, -1, Number.NaN, Number.POSITIVE_INFINITY]);
    expect([...decode(new Uint8Array(new Float32Array([0.25, -3]).buffer), "f4")]).toEqual([0.25, -3]);
    expect([...decode(new Uint8Array([0, 127, 254, 255]), "u1")]).toEqual([0, 0.5, 1, Number.NaN]);
    // A buffer that begins at an odd place.
    expect([...decode(new Uint8Array([9, 0, 0x3c]).subarray(1), "f2")]).toEqual([1]);
  });

  it("of a triangle make its square", () => {
    expect([...square(Float32Array.of(1, 2, 3, 4, 5, 6), 3)]).toEqual([1, 0, 0, 2, 3, 0, 4, 5, 6]);
  });

  it("are binned as the kernel bins them", () => {
    // From _encode.bins(9, 5).
    expect([0, 1, 2, 3, 4, 5].map((bin) => binStart(bin, 9, 5))).toEqual([0, 1, 3, 5, 7, 9]);
    for (const [tokens, side] of [
      [9, 5],
      [512, 55],
      [1024, 512],
      [5000, 512],
      [64, 64],
    ] as const) {
      for (let position = 0; position < tokens; position++) {
        const bin = binOf(position, tokens, side);
        expect(binStart(bin, tokens, side)).toBeLessThanOrEqual(position);
        expect(binStart(bin + 1, tokens, side)).toBeGreaterThan(position);
      }
    }
  });
});

describe("svg", () => {
  it("holds foreign text as text", () => {
    const hostile = "</text><script>alert(1)</script>\" ' & \0 \ud800";
    const written = tag("text", { title: hostile }, escaped(hostile));
    const parsed = new DOMParser().parseFromString(
      `<svg xmlns="http://www.w3.org/2000/svg">${written}</svg>`,
      "text/html",
    );
    expect(parsed.querySelector("script")).toBeNull();
    expect(written).not.toContain("<script");
    expect(written).not.toMatch(/[\0\ud800]/);
  });
});

describe("a file", () => {
  it("is base64 of UTF-8, which VS Code opens", () => {
    const [head, data = ""] = textUrl("image/svg+xml", "<t>␣日é</t>").split(",");
    expect(head).toBe("data:image/svg+xml;base64");
    expect(new TextDecoder().decode(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)))).toBe("<t>␣日é</t>");
  });
});
