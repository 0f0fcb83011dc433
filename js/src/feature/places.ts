import { colour, css, ink } from "../draw/colours";
import { h, on, segmented } from "../ui/dom";
import { clamp, keys, step } from "../ui/keys";
import { watch } from "../ui/watch";
import { brief, type Place } from "./meta";
import type { Token, Viewer } from "./view";

let count = 0;

/** The places where it is active: some of each tenth of its activations, or those of one. */
export function places(viewer: Viewer): HTMLElement {
  const { feature, places: all, tenth, shown, held, pointer, theme, choose, ends } = viewer;
  const name = `interp-places${++count}-`;
  const tenths = [...new Set(all.map((one) => one.tenth).filter(Boolean))].sort((a, b) => b - a);
  const options = Object.fromEntries([["t0", "all"], ...tenths.map((n) => [`t${n}`, `${n}`])]);
  const caption = h("span");
  const list = h("div.rows", { role: "listbox", tabindex: 0, "aria-label": "Places where it is active" });
  const pick = segmented("Tenth of its activations", options, (value) => {
    // The list stays as high as it was: what is below it does not move.
    list.style.minHeight = `${list.offsetHeight}px`;
    held.value = {};
    choose(Number(value.slice(1)));
  });
  let tokens = new Map<string, HTMLElement>();
  const key = ({ place, at }: Token) => `${place}-${at}`;

  const row = (place: number, one: Place) => {
    const words = one.tokens.map((token, at) => {
      const element = h(
        at === one.peak ? "span.w.peak" : "span.w",
        { role: "option", id: name + key({ place, at }), "aria-selected": false },
        h("bdi", {}, token),
      );
      element.dataset.place = `${place}`;
      element.dataset.at = `${at}`;
      tokens.set(key({ place, at }), element);
      return element;
    });
    const where = one.text < 0 ? "no text has it" : `text ${one.text}, position ${one.position}`;
    return h(
      "div.row",
      { role: "group", "aria-label": where },
      h("span.v", { title: where }, brief(one.activation)),
      h(
        "span.centred.mono",
        {},
        h("span", {}, ...words.slice(0, one.peak)),
        ...words.slice(one.peak, one.peak + 1),
        h("span", {}, ...words.slice(one.peak + 1)),
      ),
      h("span.muted", {}, one.times > 1 ? `×${one.times}` : ""),
    );
  };
  const of = (event: Event): Token | undefined => {
    const { place, at } = (event.target as HTMLElement).closest<HTMLElement>("[role=option]")?.dataset ?? {};
    return place === undefined ? undefined : { place: Number(place), at: Number(at) };
  };
  /** Whether a token is in sight: a line shows those around its peak that there is room for. */
  const seen = (token: Token) => {
    const element = tokens.get(key(token));
    const [own, around] = [element, element?.parentElement].map((one) => one?.getBoundingClientRect());
    return !!own && !!around && own.left > around.left - 2 && own.right < around.right + 2;
  };
  const move = (rows: number, columns: number) => {
    const { token } = held.peek();
    const order = shown.peek().map(([, i]) => i);
    const now = token ? order.indexOf(token.place) : rows < 0 ? order.length : -1;
    if (!token || rows) {
      const place = order[clamp(now + (rows || 1), 0, order.length - 1)];
      const peak = all[place ?? -1]?.peak;
      if (place !== undefined && peak !== undefined) held.value = { token: { place, at: peak } };
      return;
    }
    const last = (all[token.place]?.tokens.length ?? 1) - 1;
    const goal = clamp(token.at + columns, 0, last);
    const way = Math.sign(goal - token.at);
    let at = token.at;
    while (at !== goal && seen({ ...token, at: at + way })) at += way;
    held.value = { token: { ...token, at } };
  };

  watch(
    ends,
    () => {
      const chosen = tenth.value;
      pick.show(`t${chosen}`);
      const found = shown.value.length;
      caption.textContent = chosen
        ? `${chosen === 10 ? "strongest tenth" : `tenth ${chosen}`} of its activations: ${found} place${found > 1 ? "s" : ""}`
        : (shown.value[0]?.[0] ?? "");
    },
    () => {
      tokens = new Map();
      list.replaceChildren(
        ...shown.value.flatMap(([heading, i], n) => [
          ...(heading && n ? [h("div.head-of", { role: "presentation" }, heading)] : []),
          row(i, all[i] as Place),
        ]),
      );
    },
    () => {
      const { table } = theme.value;
      shown.value;
      for (const element of tokens.values()) {
        const one = all[Number(element.dataset.place)];
        const part = (one?.around[Number(element.dataset.at)] ?? 0) / feature.most;
        const fill = colour(table, Math.min(1, part));
        element.style.background = part > 0 ? css(fill) : "";
        element.style.color = part > 0 ? ink(fill) : "";
      }
    },
    () => {
      shown.value;
      const { token } = held.value;
      const id = token && key(token);
      for (const [own, element] of tokens) {
        element.classList.toggle("interp-held", own === id);
        element.setAttribute("aria-selected", `${own === id}`);
      }
      if (id) list.setAttribute("aria-activedescendant", name + id);
      else list.removeAttribute("aria-activedescendant");
    },
  );
  on(list, {
    click(event) {
      const token = of(event);
      if (!token) return;
      const { token: before } = held.peek();
      held.value = before && key(before) === key(token) ? {} : { token };
      list.focus({ preventScroll: true });
    },
    pointerover(event) {
      pointer.value = { token: of(event) };
    },
    pointerleave() {
      pointer.value = {};
    },
  });
  keys(list, (pressed) => {
    const by = step(pressed);
    if (pressed === "Escape") held.value = {};
    else if (by) move(...by);
    else return false;
    return true;
  });
  return h("div.places", {}, h("div.caption.brief", {}, caption, pick.element), list);
}
