/** What `make` gives for 0 to `count` − 1. */
export const times = <T>(count: number, make: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));

export const { isFinite: finite } = Number;
