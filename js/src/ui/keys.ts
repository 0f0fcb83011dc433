/** Keys of one element. */
export function keys(element: HTMLElement, handle: (key: string) => boolean | undefined): void {
  element.addEventListener("keydown", (event) => {
    if (plain(event) && handle(event.key)) event.preventDefault();
  });
}

const plain = ({ ctrlKey, metaKey, altKey }: KeyboardEvent) => !(ctrlKey || metaKey || altKey);

/**
 * Keys that are pressed on what is in `frame` stay there, whether it takes them or not: a letter would be a command to
 * the notebook, and inserts a cell. Those with Ctrl, Meta or Alt are the page's.
 */
export function keepKeys(frame: HTMLElement, ends: AbortSignal): void {
  // Lumino looks at keys before anyone below the window. It goes from the target up, to the first that has the
  // attribute or that a command is for, and Notebook 7 has commands for whatever has the focus: so the target has it.
  const suppress = (event: KeyboardEvent) => {
    const target = event.target as Element;
    if (frame.contains(target)) target.toggleAttribute("data-lm-suppress-shortcuts", plain(event));
  };
  addEventListener("keydown", suppress, { capture: true, signal: ends });
  frame.addEventListener("keydown", (event) => {
    if (plain(event)) event.stopPropagation();
  });
}

/** What a key moves: rows and columns by one, or a column to its end. `undefined` where it moves nothing. */
export function step(key: string): [rows: number, columns: number] | undefined {
  const steps: Record<string, [number, number]> = {
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
    Home: [0, -1e9],
    End: [0, 1e9],
  };
  return steps[key];
}

export const clamp = (value: number, low: number, high: number) => Math.max(low, Math.min(high, value));
