/**
 * Keys of one element. What is handled does not reach the notebook, whose shortcuts (arrows move between cells) would
 * act on it as well; Lumino looks at keys before anyone else and only heeds the attribute.
 */
export function keys(element: HTMLElement, handle: (key: string) => boolean | undefined): void {
  element.setAttribute("data-lm-suppress-shortcuts", "true");
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !handle(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
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
