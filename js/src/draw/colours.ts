import {
  diverging as DIVERGING,
  nan,
  parts,
  sequential as SEQUENTIAL,
  signed,
  weights,
} from "../../../src/interp/views/kit/palette.json";
import { times } from "./numbers";

export type Rgb = readonly [number, number, number];

/** The colours of a frame; the page's own where it has some. */
export interface Theme {
  name: "light" | "dark";
  background: Rgb;
  /** Of cells that are not there. */
  empty: Rgb;
  /** Of what is not a number. */
  hatch: Rgb;
  ink: string;
  muted: string;
  line: string;
  accent: string;
}

/** A frame's colours with those of weights, for a view that shows some. */
export interface WeightTheme extends Theme {
  /** See `sequential`. */
  table: Uint8ClampedArray;
}

/** A colour that is written as #rrggbb. */
export function split(hex: string): Rgb {
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as unknown as Rgb;
}

/** The colours of a frame with this background and text. */
export function colours(background: Rgb, ink: Rgb): Omit<Theme, "accent"> {
  const name = luminance(background) < 0.3 ? "dark" : "light";
  const mix = (part: number) => between([background, ink], part);
  return {
    name,
    background,
    empty: mix(parts.empty),
    hatch: split(nan[name]),
    ink: css(ink),
    muted: css(mix(parts.muted)),
    line: css(mix(parts.line)),
  };
}

/** The colour at 0 to 1 of a scale whose stops are equally far apart. */
function between(stops: readonly Rgb[], at: number): Rgb {
  const place = at * (stops.length - 1);
  const from = Math.min(stops.length - 2, Math.floor(place));
  const [low, high] = [stops[from], stops[from + 1]] as [Rgb, Rgb];
  return low.map((value, i) => Math.round(value + ((high[i] as number) - value) * (place - from))) as unknown as Rgb;
}

/** 256 colours for weights of 0 to 1, from the background on: `[r, g, b, r, …]`; small weights are lifted. */
export function sequential({ background, name }: Pick<Theme, "background" | "name">): Uint8ClampedArray {
  const stops = [background, ...SEQUENTIAL[name].map(split)];
  return Uint8ClampedArray.from(times(256, (i) => between(stops, (i / 255) ** weights.power)).flat());
}

/** The colours of such a table in the steps that the kernel's drawings name, `--interp-s0` and on. */
export function steps(table: Uint8ClampedArray): string[] {
  return times(weights.levels + 1, (n) => css(colour(table, (n / weights.levels) ** (1 / weights.power))));
}

/** The row of the table for a weight of 0 to 1. */
export function level(weight: number): number {
  return weight >= 1 ? 255 : weight > 0 ? Math.round(weight * 255) : 0;
}

export function colour(table: Uint8ClampedArray, weight: number): Rgb {
  return table.subarray(3 * level(weight), 3 * level(weight) + 3) as unknown as Rgb;
}

/** Where on the scale of `diverging` a value of −1 to 1 is drawn. */
export const lifted = (value: number) => Math.sign(value) * Math.min(1, Math.abs(value)) ** signed.power;

/** The colours from −1 to 1: blue against, the background at zero, red towards. */
export function diverging({ background, name }: Pick<Theme, "background" | "name">): (at: number) => string {
  const stops = DIVERGING[name].map(split);
  stops.splice(2, 0, background);
  return (at) => css(between(stops, (at + 1) / 2));
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
