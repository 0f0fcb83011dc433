import { times } from "../draw/numbers";
import { bytes } from "../host/model";
import { clamp } from "../ui/keys";
import type { Drawn } from "../ui/svg";
import type { Piece } from "../ui/words";

/** A feature as the kernel has it; numbers travel as bytes beside it. */
export interface Feature {
  title: string;
  facts: string;
  about: Record<string, string | number>;
  /** Label, histogram and logits, as they stand beside the places; then what stands below both. */
  own: Drawn[][];
  lists: Drawn[][];
  bars: [count: number, width: number, height: number];
  /** Where the scale of colours ends. */
  most: number;
  places: Named[];
  /** What is shown at first: places by their number, each with the heading above it. */
  opens: [heading: string, place: number][];
  steer: Steer | null;
  strongest: Piece[];
  key: Piece[];
  notes: string[];
}

/** A place where it is active, in words. */
export interface Named {
  tokens: string[];
  peak: number;
  /** 10 are the strongest; 0 is an input that is in no text. */
  tenth: number;
  times: number;
  text: number;
  position: number;
}

export interface Steer {
  caption: string;
  prompt: string;
  /** What strengths are counted in; whether that is its largest activation. */
  unit: number;
  active: boolean;
  /** Strengths in percent of the unit. */
  opens: number;
  range: [low: number, high: number, step: number];
}

export interface Place extends Named {
  activation: number;
  /** Its activation at each of the tokens; NaN where it was not read. */
  around: Float32Array;
}

/** A bar of the histogram: `low` and `high` are the tenths that it has a part of. */
export interface Bar {
  from: number;
  to: number;
  count: number;
  tenth: number;
  low: number;
  high: number;
}

/** The numbers out of their bytes: see the kernel's `_packed`. */
export function unpack({ bars: [count], places }: Feature, data: unknown): { bars: Bar[]; places: Place[] } {
  const buffer = bytes(data).slice().buffer;
  const edges = new Float32Array(buffer, 0, count + 1);
  const counts = new Uint32Array(buffer, edges.byteLength, count);
  const values = new Float32Array(buffer, edges.byteLength + counts.byteLength);
  const total = counts.reduce((sum, one) => sum + one, 0) || 1;
  const tenth = (below: number) => clamp(1 + Math.floor((10 * below) / total), 1, 10);
  let below = 0;
  const bars = times(count, (i): Bar => {
    const [from = 0, to = 0] = edges.subarray(i);
    const own = counts[i] ?? 0;
    const [first, middle, last] = [0, own / 2, Math.max(0, own - 1)].map((part) => tenth(below + part));
    below += own;
    return { from, to, count: own, tenth: middle as number, low: first as number, high: last as number };
  });
  let at = places.length;
  return {
    bars,
    places: places.map((one, i) => {
      const around = values.subarray(at, at + one.tokens.length);
      at += one.tokens.length;
      return { ...one, activation: values[i] ?? Number.NaN, around };
    }),
  };
}

/** A value in at most three digits, as lists have it. */
export const brief = (value: number) => `${Number(value.toPrecision(3))}`.replace("-", "−");
