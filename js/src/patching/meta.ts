import type { Signed } from "../draw/diverging";
import type { Drawn } from "../ui/svg";

export type Axis = "layer" | "head" | "position" | "neuron" | "span";
export type Quantity = "recovery" | "effect";
export type Source = "exact" | "estimate";

/** A cell of the sweep, by its axes: indices into them, a layer's too. */
export type At = Partial<Record<Axis, number>>;

/** One cell's numbers; a number that JSON has not is null. */
export interface Entry {
  at: number[];
  effect: number | null;
  low: number | null;
  high: number | null;
  /** The ends of a recovery's interval, in the unit of the effect; of listed cells alone. */
  least?: number | null;
  most?: number | null;
  estimate: number | null;
}

/** How the numbers of a slice are to be read. */
export interface Form {
  /** "strongest", or the axis that is held at `index`. */
  hold: Axis | "strongest";
  index: number;
  axes: [Axis, Axis | null];
  shape: [number, number];
  /** The axis whose number each cell has of its own, in the plane `index`. */
  own: Axis | null;
  /** How many columns share a cell. */
  block: number;
  labels: Omit<Signed, "values" | "block">;
  /** What the marks on cells mean. */
  marks: Record<Source, Record<Quantity, string[]>>;
  planes: string[];
  ends: Record<Source, Record<Quantity, number>>;
  caption: string;
}

/** A sweep as the kernel has it at the moment. */
export interface Sweep {
  facts: string;
  axes: Axis[];
  shape: number[];
  layers: number[];
  tokens: string[];
  /** Whether `tokens` are token strings. */
  named: boolean;
  /** Whether the heads are query heads, which the shared selection names. */
  queries: boolean;
  /** What stands between a layer and a head's number: "H", or which heads these are. */
  head: string;
  metric: string;
  span: number;
  /** The recovery of the run that was patched: 0 or 1. */
  start: number;
  /** The metric of the run that was patched. */
  base: number | null;
  turned: boolean;
  meaning: Record<Quantity, string>;
  quantity: string;
  pairs: number;
  pair: {
    heading: string;
    prompts: [name: string, tokens: [token: string, differs: boolean][]][];
    sides: [string, string];
    answers: [lead: string, clean: string, corrupted: string][];
  };
  /** What the kernel draws: above and below the heatmap, before and after the list. */
  extras: Record<"above" | "below" | "before" | "after", Drawn[]>;
  /** How many lines the picture has below its list. */
  lines: number;
  notes: string[];
  done: number;
  /** Of all cells of all pairs, in percent. */
  share: number;
  total: number;
  seconds: number;
  running: boolean;
  /** Whether not even the unpatched prompts are run. */
  preparing?: boolean;
  estimated: boolean;
  top: Record<Source, Entry[]>;
  form: Form;
  cells: unknown;
}

export interface Selected {
  layer: number | null;
  head: number | null;
  position: number | null;
}
