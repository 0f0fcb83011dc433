import { type Signal, signal } from "@preact/signals-core";

const PADDING = 28; // px that a frame has at both sides
const UNSEEN = 800;

/** The width of a drawing's column in px, `wide` where there is room: see `layout/frame.css`. */
export function column(element: HTMLElement, ends: AbortSignal, wide: number): Signal<number> {
  element.classList.add("interp-part");
  element.style.setProperty("--wide", `${wide}px`);
  const width = signal(wide);
  const resized = new ResizeObserver(() => {
    width.value = element.clientWidth || wide;
  });
  resized.observe(element);
  ends.addEventListener("abort", () => resized.disconnect());
  return width;
}

/** The width of a frame's inside in px, which changes with the page; `changed` is called before it does. */
export function room(frame: HTMLElement, ends: AbortSignal, changed: () => void): Signal<number> {
  const width = signal(0);
  const resize = () => {
    // A front end may put the frame on the page after this: only then has it a width and colours.
    changed();
    width.value = frame.clientWidth ? Math.max(240, frame.clientWidth - PADDING) : UNSEEN;
  };
  const resized = new ResizeObserver(resize);
  resized.observe(frame);
  resize();
  ends.addEventListener("abort", () => resized.disconnect());
  return width;
}
