import { tag } from "../draw/svg";
import { h } from "./dom";

/** Put a drawing into an element. It is parsed as XML, where nothing of a token could be markup: `tag` has escaped it. */
export function place(element: HTMLElement, width: number, height: number, body: string): void {
  const size = { xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}` };
  const parsed = new DOMParser().parseFromString(tag("svg", size, body), "image/svg+xml").documentElement;
  parsed.setAttribute("aria-hidden", "true");
  element.replaceChildren(document.importNode(parsed, true));
}

/** What the kernel draws, below its caption. */
export type Drawn = [caption: string, width: number, height: number, body: string];

/** A caption and its drawing: see `drawn.css`. */
export function drawn([caption, ...drawing]: Drawn): HTMLElement[] {
  const element = h("div.drawn");
  place(element, ...drawing);
  return [h("div.caption", {}, h("span", {}, caption)), element];
}
