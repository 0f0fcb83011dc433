import { type ReadonlySignal, signal } from "@preact/signals-core";
import type { Model } from "./model";

/** A trait as a signal, until `ends`. */
export function trait<T>(model: Model, name: string, ends: AbortSignal): ReadonlySignal<T> {
  const value = signal(model.get(name) as T);
  const update = () => {
    value.value = model.get(name) as T;
  };
  model.on(`change:${name}`, update);
  ends.addEventListener("abort", () => model.off(`change:${name}`, update));
  return value;
}
