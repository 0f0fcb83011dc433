import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import type { Theme } from "../draw/colours";
import { bytes } from "../host/model";
import { trait } from "../host/traits";
import type { Mounted } from "../ui/mount";
import { selecting } from "../ui/selected";
import { watch } from "../ui/watch";
import type { At, Axis, Entry, Form, Quantity, Selected, Source, Sweep } from "./meta";

/** The numbers of one picture, row by row. */
export interface Slice {
  form: Form;
  plane(name: string): Float32Array;
}

/** One view: what all of its parts look at. */
export interface Viewer extends Mounted {
  sweep: ReadonlySignal<Sweep>;
  /** What the kernel says of how far it is, from time to time while it runs. */
  said: ReadonlySignal<string | undefined>;
  /** Seconds that the sweep has taken: they pass here while the kernel says nothing. */
  seconds: ReadonlySignal<number>;
  slice: ReadonlySignal<Slice>;
  hold: Signal<Form["hold"]>;
  quantity: ReadonlySignal<Quantity>;
  source: ReadonlySignal<Source>;
  wanted: { quantity: Signal<Quantity>; source: Signal<Source | undefined> };
  selected: ReadonlySignal<Selected>;
  /** The user chose a cell, or none: show it now and tell the kernel. */
  choose(at: At): void;
  /** What is under the pointer: it shows for a moment and tells the kernel nothing. */
  pointer: Signal<At | undefined>;
  /** The cell that is spoken of: under the pointer, else chosen. */
  current: ReadonlySignal<At | undefined>;
  /** The chosen cell. */
  chosen: ReadonlySignal<At | undefined>;
  theme: ReadonlySignal<Theme>;
  /** Of the frame's inside, in px. */
  width: Signal<number>;
}

export function viewer(mounted: Mounted, theme: ReadonlySignal<Theme>, width: Signal<number>): Viewer {
  const { model, rpc, ends, fail } = mounted;
  const sweep = trait<Sweep>(model, "sweep", ends);
  const said = trait<string | undefined>(model, "said", ends);
  const seconds = signal(0);
  let told = 0;
  watch(ends, () => {
    seconds.value = sweep.value.seconds;
    told = performance.now();
  });
  const clock = setInterval(() => {
    const { running, seconds: then } = sweep.peek();
    if (running) seconds.value = then + (performance.now() - told) / 1000;
  }, 500);
  ends.addEventListener("abort", () => clearInterval(clock));
  const wanted = { quantity: signal<Quantity>("recovery"), source: signal<Source | undefined>(undefined) };
  const quantity = computed<Quantity>(() => (sweep.value.span ? wanted.quantity.value : "effect"));
  const source = computed<Source>(() => {
    const { estimated, done, total } = sweep.value;
    return estimated ? (wanted.source.value ?? (done < total ? "estimate" : "exact")) : "exact";
  });
  const hold = signal<Form["hold"]>("strongest");
  const pointer = signal<At | undefined>(undefined);
  // Neurons and spans are not what the shared selection numbers.
  const own = signal<{ neuron?: number | undefined; span?: number | undefined }>({});

  const link = selecting<Selected>(
    mounted,
    { layer: null, head: null, position: null },
    ({ layer = null, head = null, position = null }) => ({ layer, head, position }) as Selected,
  );
  const { selected } = link;
  const chosen = computed(() => {
    const { axes, layers, queries } = sweep.value;
    const { layer, head, position } = selected.value;
    const at: At = { layer: layers.indexOf(layer ?? -1) };
    if (at.layer === -1) return undefined;
    if (axes.includes("head") && queries) at.head = head ?? -1;
    else if (axes.includes("head")) at.head = groups.value ?? -1;
    if (axes.includes("position")) at.position = position ?? -1;
    for (const axis of ["neuron", "span"] as const) if (axes.includes(axis)) at[axis] = own.value[axis] ?? -1;
    // By head and position, a head without a position is its strongest.
    return axes.every((axis) => at[axis] !== -1 || (axis === "position" && axes.length > 2)) ? at : undefined;
  });
  // A key's or a value's head is not one of those that the shared selection numbers.
  const groups = signal<number | undefined>(undefined);

  const choose = (at: At) => {
    const { axes, layers, queries } = sweep.peek();
    const part: Partial<Selected> & { query?: null; key?: null } = {
      layer: at.layer === undefined ? null : (layers[at.layer] ?? null),
    };
    if (axes.includes("head") && queries) part.head = at.head ?? null;
    // What is chosen is spoken of, wherever the pointer rests.
    pointer.value = undefined;
    groups.value = queries ? undefined : at.head;
    own.value = { neuron: at.neuron, span: at.span };
    // A token that an attention view holds would else stay the one that it shows.
    if (axes.includes("position")) Object.assign(part, { position: at.position ?? null, query: null, key: null });
    link.choose(part);
  };

  // -- the slice: the kernel's first one, or what was asked for --

  const asked = signal<Slice | undefined>(undefined);
  const first = computed(() => sliced(sweep.value.form, sweep.value.cells));
  watch(ends, () => {
    const kind = hold.value;
    sweep.value; // another result, other numbers
    if (kind === "strongest") {
      asked.value = undefined;
      return;
    }
    const index = Math.max(0, chosen.value?.[kind] ?? strongest(sweep.value, source.value)?.[kind] ?? 0);
    rpc.latest("slice", { hold: kind, index }).then(({ data, buffers }) => {
      asked.value = sliced(data as unknown as Form, buffers[0]);
    }, fail);
  });
  const slice = computed(() => asked.value ?? first.value);

  return {
    ...mounted,
    sweep,
    said,
    seconds,
    slice,
    hold,
    quantity,
    source,
    wanted,
    selected,
    choose,
    pointer,
    chosen,
    current: computed(() => pointer.value ?? chosen.value),
    theme,
    width,
  };
}

function sliced(form: Form, data: unknown): Slice {
  // A copy: a message's bytes need not begin where a number may.
  const values = new Float32Array(bytes(data).slice().buffer);
  const size = form.shape[0] * form.shape[1];
  return {
    form,
    plane(name) {
      const at = form.planes.indexOf(name) * size;
      return at < 0 ? new Float32Array(size).fill(Number.NaN) : values.subarray(at, at + size);
    },
  };
}

/** The cell at a row and a column of a slice. */
export function cellAt({ form, plane }: Slice, row: number, column: number): At | undefined {
  const [rows, columns] = form.shape;
  if (!(row >= 0 && row < rows && column >= 0 && column < columns)) return undefined;
  const [down, across] = form.axes;
  const at: At = { [down]: row };
  if (across) at[across] = column;
  if (form.hold !== "strongest") at[form.hold] = form.index;
  if (form.own) at[form.own] = plane("index")[row * columns + column] as number;
  return at;
}

/** Where a slice has a cell. */
export function placeOf({ form, plane }: Slice, at: At | undefined): [row: number, column: number] | undefined {
  if (!at) return undefined;
  const [rows, columns] = form.shape;
  const [down, across] = form.axes;
  const row = at[down] ?? -1;
  if (row < 0 || row >= rows || (form.hold !== "strongest" && at[form.hold] !== form.index)) return undefined;
  let column = across ? (at[across] ?? -1) : 0;
  // Where the columns are ranks or share cells, each cell knows which one it is.
  if (form.own && form.own === across) {
    column = plane("index")
      .subarray(row * columns, (row + 1) * columns)
      .indexOf(at[across] ?? -1);
    if (column < 0 && form.block > 1) column = Math.floor((at[across] ?? -1) / form.block);
  }
  return column >= 0 && column < columns ? [row, column] : undefined;
}

/** The cell of the largest effect. */
export function strongest({ axes, top }: Sweep, source: Source): At | undefined {
  const [entry] = top[source];
  return entry && atOf(axes, entry);
}

export const atOf = (axes: Axis[], { at }: Entry): At => Object.fromEntries(axes.map((axis, i) => [axis, at[i]]));

/** A cell's numbers, from the list of the strongest or from the slice; undefined where they are in neither. */
export function entryOf({ sweep, slice }: Viewer, at: At): Entry | undefined {
  const { axes, top } = sweep.value;
  const listed = [...top.exact, ...top.estimate].find((entry) => axes.every((axis, i) => at[axis] === entry.at[i]));
  if (listed) return listed;
  const place = placeOf(slice.value, at);
  if (!place) return undefined;
  const { form, plane } = slice.value;
  const index = place[0] * form.shape[1] + place[1];
  const found = cellAt(slice.value, ...place) ?? {};
  const [effect, low, high, estimate] = ["effect", "low", "high", "estimate"].map(
    (name) => plane(name)[index] as number,
  );
  return {
    at: axes.map((axis) => found[axis] ?? 0),
    effect: effect as number,
    low: low as number,
    high: high as number,
    estimate: estimate as number,
  };
}

/** A cell as it is called: a head, a token of a layer. */
export function nameOf({ layers, tokens, named, head }: Sweep, at: At): string {
  const layer = `L${layers[at.layer ?? 0]}`;
  if (at.neuron !== undefined) return `${layer} neuron ${at.neuron}`;
  if (at.span !== undefined) return `${layer} ${tokens[at.span]}`;
  const name = at.head === undefined ? layer : layer + head + at.head;
  if (at.position === undefined || at.position < 0) return name;
  return named ? `${name} ${tokens[at.position]} (${at.position})` : `${name} position ${at.position}`;
}

/** An effect in the quantity that is shown. */
export const shownAs = ({ span }: Sweep, quantity: Quantity, effect: number) =>
  quantity === "recovery" ? effect / span : effect;

/** Whether falling is towards the answer. */
export const isTurned = ({ span, turned }: Sweep, quantity: Quantity) =>
  quantity === "effect" && (span ? span < 0 : turned);

/** What of an entry is shown. */
export const given = (entry: Entry, source: Source) =>
  (source === "exact" ? entry.effect : entry.estimate) ?? Number.NaN;
