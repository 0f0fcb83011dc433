import { weight } from "../draw/signed";
import { h } from "../ui/dom";
import { watch } from "../ui/watch";
import { counted, type Piece, plural, spans } from "../ui/words";
import { brief } from "./meta";
import type { Held, Token, Viewer } from "./view";

/** A bar in words. */
export function ofBar({ bars }: Viewer, index: number): string {
  const { from, to, count, low, high } = bars[index] ?? { from: 0, to: 0, count: 0, low: 0, high: 0 };
  const where = `${plural(count, "activation")} from ${brief(from)} to ${brief(to)}`;
  if (!count) return where;
  return `${where}, in ${low === high ? `tenth ${low}` : `tenths ${low} to ${high}`}`;
}

function ofToken({ places, feature }: Viewer, { place, at }: Token): Piece[] {
  const one = places[place];
  const value = one?.around[at] ?? Number.NaN;
  if (!one) return [];
  const said: Piece = ["", one.tokens[at] ?? "", true];
  const found: Piece[] = Number.isNaN(value)
    ? [said, ["begins the text, and is left out"]]
    : [said, ["activation ", weight(value), true], [`${Math.round((100 * value) / feature.most)} % of its largest`]];
  if (one.text >= 0) found.push([`text ${counted(one.text)}, position ${counted(one.position + at - one.peak)}`]);
  if (at === one.peak && one.tenth) found.push([`in tenth ${one.tenth}`]);
  return found;
}

/** What is under the pointer, or held, or else the strongest place, in words and exact numbers. */
export function words(viewer: Viewer): Piece[] {
  const { token, bar } = current(viewer);
  if (token) return ofToken(viewer, token);
  return bar === undefined ? viewer.feature.strongest : [["", ofBar(viewer, bar), true]];
}

function current({ pointer, held }: Viewer): Held {
  const { token, bar } = pointer.value;
  return token || bar !== undefined ? { token, bar } : held.value;
}

export function foot(viewer: Viewer): HTMLElement {
  const line = h("span.line", { role: "status", "aria-live": "polite" });
  watch(viewer.ends, () => {
    const said = spans(words(viewer));
    if (current(viewer).token) said[0]?.classList.add("interp-mono");
    line.replaceChildren(...said);
  });
  return h("div.foot", {}, h("div.stacked", {}, line, h("span.line", {}, ...spans(viewer.feature.key))));
}
