import { signal } from "@preact/signals-core";
import { weight } from "../draw/signed";
import { h } from "../ui/dom";
import { watch } from "../ui/watch";
import { counted } from "../ui/words";
import type { Viewer } from "./view";

function made(headings: string[], rows: string[][]): HTMLElement {
  const head = h("tr", {}, ...headings.map((name) => h("th", { scope: "col" }, name)));
  const body = rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", {}, cell))));
  return h("table", {}, h("thead", {}, head), h("tbody", {}, ...body));
}

/** The shown places and the histogram as tables. Made while they are open. */
export function table({ shown, places, bars, ends }: Viewer): HTMLElement {
  const open = signal(false);
  const scroll = h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Places and histogram" });
  const element: HTMLDetailsElement = h("details.data", {}, h("summary", {}, "Places and histogram as tables"), scroll);
  element.addEventListener("toggle", () => {
    open.value = element.open;
  });
  watch(ends, () => {
    if (!open.value) return;
    const rows = shown.value.map(([, i]) => {
      const one = places[i];
      if (!one) return [];
      const where = one.text < 0 ? ["", ""] : [counted(one.text), counted(one.position)];
      const tenth = one.tenth ? `${one.tenth}` : "";
      return [weight(one.activation), tenth, one.tokens[one.peak] ?? "", ...where, `${one.times}`, one.tokens.join("")];
    });
    const counts = bars.map(({ from, to, count }) => [weight(from), weight(to), counted(count)]);
    scroll.replaceChildren(
      made(["activation", "tenth", "token", "text", "position", "times", "context"], rows),
      made(["from", "to", "activations"], counts),
    );
  });
  return element;
}
