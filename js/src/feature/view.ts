import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import type { WeightTheme } from "../draw/colours";
import type { Mounted } from "../ui/mount";
import { type Bar, type Feature, type Place, unpack } from "./meta";

/** A token of a place. */
export interface Token {
  place: number;
  at: number;
}

/** What is pointed at, or held. */
export interface Held {
  token?: Token | undefined;
  bar?: number | undefined;
}

/** What the model said with the feature added, and without. */
export interface Said {
  strength: number;
  /** How long what was added is, and the stream where it was. */
  added: number | null;
  stream: number | null;
  prompt: string;
  texts: [same: string, rest: string, ended: string][];
  tokens: [token: string, before: number | null, after: number | null][];
}

/** One view: what all of its parts look at. */
export interface Viewer extends Mounted {
  feature: Feature;
  bars: Bar[];
  places: Place[];
  theme: ReadonlySignal<WeightTheme>;
  /** The tenth whose places are shown, 0 for the strongest and some of each. */
  tenth: ReadonlySignal<number>;
  choose(tenth: number): void;
  held: Signal<Held>;
  pointer: Signal<Held>;
  shown: ReadonlySignal<Feature["opens"]>;
  said: Signal<Said | undefined>;
}

export function viewer(mounted: Mounted, theme: ReadonlySignal<WeightTheme>): Viewer {
  const feature = mounted.model.get("feature") as Feature;
  const { bars, places } = unpack(feature, mounted.model.get("numbers"));
  const tenth = signal(0);
  const held = signal<Held>({});
  return {
    ...mounted,
    feature,
    bars,
    places,
    theme,
    tenth,
    choose(next) {
      if (next === tenth.peek()) return;
      tenth.value = next;
      // What is no longer shown is not held.
      if (held.peek().token) held.value = {};
    },
    held,
    pointer: signal<Held>({}),
    shown: computed(() =>
      tenth.value
        ? [...places.keys()].filter((i) => places[i]?.tenth === tenth.value).map((i) => ["", i] as [string, number])
        : feature.opens,
    ),
    said: signal<Said | undefined>(undefined),
  };
}
