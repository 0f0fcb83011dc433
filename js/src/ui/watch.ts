import { effect } from "@preact/signals-core";

/** Run each function now and whenever a signal that it read changes, until `ends`. */
export function watch(ends: AbortSignal, ...functions: (() => void)[]): void {
  for (const run of functions) {
    // An effect takes a function that is returned for its clean-up.
    ends.addEventListener(
      "abort",
      effect(() => void run()),
    );
  }
}
