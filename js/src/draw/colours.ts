export type Rgb = readonly [number, number, number];

/** How much small weights are lifted: a weight w is coloured as w ** LIFT. */
export const LIFT = 0.6;

const LIGHT = [0xcddcf7, 0x7193e4, 0x2f4ec4, 0x141a66].map(split);
const DARK = [0x3d2b80, 0x923e8f, 0xf2795a, 0xfeeeb8].map(split);

/** A colour that is written as 0xrrggbb. */
export function split(hex: number): Rgb {
  return [hex >> 16, (hex >> 8) & 255, hex & 255];
}

/** 256 colours for weights of 0 to 1, from the background on: `[r, g, b, r, …]`. */
export function sequential(background: Rgb, dark: boolean): Uint8ClampedArray {
  const stops = [background, ...(dark ? DARK : LIGHT)];
  return Uint8ClampedArray.from({ length: 768 }, (_, i) => {
    const at = (Math.floor(i / 3) / 255) ** LIFT * 4;
    const from = Math.min(Math.floor(at), 3);
    const [low, high] = [stops[from]?.[i % 3] ?? 0, stops[from + 1]?.[i % 3] ?? 0];
    return low + (high - low) * (at - from);
  });
}

/** The row of the table for a weight of 0 to 1. */
export function level(weight: number): number {
  return weight >= 1 ? 255 : weight > 0 ? Math.round(weight * 255) : 0;
}

export function colour(table: Uint8ClampedArray, weight: number): Rgb {
  return table.subarray(3 * level(weight), 3 * level(weight) + 3) as unknown as Rgb;
}

export function css(rgb: Rgb): string {
  return `rgb(${[...rgb]})`;
}

/** Relative luminance (WCAG 2). */
export function luminance(rgb: Rgb): number {
  const [r = 0, g = 0, b = 0] = [...rgb].map((v) => (v <= 10 ? v / 3295 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** What reads on `background`: black or white, by at least 4.5 to 1. */
export function ink(background: Rgb): string {
  return luminance(background) > 0.179 ? "#000" : "#fff";
}

/** The dots of labelled heads: a colour a label, in the order of the labels. */
export const DOTS = ["#d97706", "#059669", "#db2777", "#0891b2", "#7c3aed", "#65a30d"];
