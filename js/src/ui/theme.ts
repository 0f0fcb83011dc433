import { type ReadonlySignal, signal } from "@preact/signals-core";
import { colours, type Rgb, type Theme } from "../draw/colours";

/** The computed colours of `frame`, and again whenever the page's theme changes or `update` is called. */
export function theme(frame: HTMLElement, ends: AbortSignal): { current: ReadonlySignal<Theme>; update: () => void } {
  const current = signal(read(frame));
  const key = ({ background, ink, accent }: Theme) => `${background}${ink}${accent}`;
  const update = () => {
    const next = read(frame);
    if (key(next) !== key(current.peek())) current.value = next;
  };
  const observer = new MutationObserver(update);
  for (const element of [document.body, document.documentElement]) observer.observe(element, { attributes: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update, { signal: ends });
  // A theme's style sheet may come after the attributes that announce it.
  document.addEventListener("load", update, { capture: true, signal: ends });
  ends.addEventListener("abort", () => observer.disconnect());
  return { current, update };
}

function read(frame: HTMLElement): Theme {
  const style = getComputedStyle(frame);
  const background = rgb(style.backgroundColor) ?? [255, 255, 255];
  const text = rgb(style.color) ?? [17, 24, 39];
  const found = colours(background, text);
  // The accent that the style sheet gives depends on it.
  frame.dataset.theme = found.name;
  // High contrast has no pale ink.
  const muted = document.body.classList.contains("vscode-high-contrast") ? found.ink : found.muted;
  return { ...found, muted, accent: style.accentColor };
}

/** A computed colour, which may be written in any colour space: painted and read back. */
function rgb(text: string): Rgb | undefined {
  const context = document.createElement("canvas").getContext("2d");
  // A frame that is not on the page yet has no colours.
  if (!context || !text) return undefined;
  context.fillStyle = text;
  context.fillRect(0, 0, 1, 1);
  const [r = 0, g = 0, b = 0, alpha] = context.getImageData(0, 0, 1, 1).data;
  return alpha ? [r, g, b] : undefined;
}
