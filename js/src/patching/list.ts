import { font, bars as geometry } from "../../../src/interp/views/kit/palette.json";
import { columnsOf } from "../draw/diverging";
import { finite, times } from "../draw/numbers";
import { signed } from "../draw/signed";
import { h, on } from "../ui/dom";
import { clamp, keys } from "../ui/keys";
import { watch } from "../ui/watch";
import { extras } from "./extras";
import type { Entry } from "./meta";
import { atOf, given, isTurned, nameOf, shownAs, type Viewer } from "./view";

export const TRACK = geometry.track; // px that the bars have

const LEAST = 230; // px that what stands beside the picture has at least
const NAMED = 190; // px that a bar takes beside its name

const HIGH = 570; // px that a list is high, as long as its rows can be read

let lists = 0;

/** The room that the list has beside the picture, in px. */
export const least = (viewer: Viewer) =>
  Math.max(
    LEAST,
    ...[...viewer.sweep.value.extras.before, ...viewer.sweep.value.extras.after].map(([, width]) => width),
    ...listed(viewer).map((entry) =>
      Math.ceil(
        NAMED + 11 * font.advance * columnsOf(nameOf(viewer.sweep.value, atOf(viewer.sweep.value.axes, entry))),
      ),
    ),
  );

/** What is listed: the strongest cells, or every layer of a sweep by layer. */
export function listed(viewer: Viewer): Entry[] {
  const { sweep, slice, source } = viewer;
  const { axes, top } = sweep.value;
  if (axes.length > 1) return top[source.value];
  const { form, plane } = slice.value;
  const planes = ["effect", "low", "high", "least", "most", "estimate"].map(plane);
  return times(form.shape[0], (row) => {
    const [effect, low, high, least, most, estimate] = planes.map((values) => values[row] as number);
    return { at: [row], effect, low, high, least, most, estimate } as Entry;
  });
}

/** A listed cell as a bar: from the common zero, in px of `TRACK`. */
export interface Bar {
  name: string;
  value: number;
  towards: boolean;
  /** Whether it is longer than there is room. */
  broken: boolean;
  from: number;
  to: number;
  low: number;
  high: number;
}

/** The bars of `entries` and where their zero is. */
export function bars(viewer: Viewer, entries: Entry[]): { zero: number; bars: Bar[] } {
  const sweep = viewer.sweep.value;
  const [quantity, source] = [viewer.quantity.value, viewer.source.value];
  const turned = isTurned(sweep, quantity);
  const values = entries.map((entry) => shownAs(sweep, quantity, given(entry, source)));
  const sizes = values
    .filter(finite)
    .map(Math.abs)
    .sort((a, b) => b - a);
  // One bar that is far longer than the others would leave nothing of them.
  const usual = geometry.longest * (sizes[Math.min(2, sizes.length - 1)] ?? 0);
  const end = usual && (sizes[0] ?? 0) > 2 * usual ? usual : (sizes[0] ?? 0);
  const drawn = values.map((value) => (finite(value) ? Math.sign(value) * Math.min(Math.abs(value), end) : 0));
  const bounds = entries.map(({ low, high, least, most }) =>
    (quantity === "recovery" ? [least, most] : [low, high])
      .map((bound) => (source === "exact" ? shownAs(sweep, quantity, bound ?? Number.NaN) : Number.NaN))
      .sort((a, b) => a - b),
  ) as [number, number][];
  // An interval is seen whole, unless it is longer than twice the longest bar.
  const reach = bounds
    .flat()
    .filter(finite)
    .map((value) => clamp(value, -2 * end, 2 * end));
  const below = Math.max(0, ...[...drawn, ...reach].map((value) => -value));
  const unit = TRACK / (below + Math.max(0, ...drawn, ...reach) || 1);
  const zero = below * unit;
  const inside = (value: number) => clamp(zero + value * unit, 0, TRACK);
  return {
    zero,
    bars: entries.map((entry, i) => {
      const value = values[i] as number;
      const [low, high] = bounds[i] as [number, number];
      const [from, to] = [zero, inside(drawn[i] as number)].sort((a, b) => a - b) as [number, number];
      return {
        name: nameOf(sweep, atOf(sweep.axes, entry)),
        value,
        towards: value > 0 !== turned,
        broken: Math.abs(value) > end * (1 + 1e-6),
        from,
        to,
        low: inside(low),
        high: inside(high),
      };
    }),
  };
}

/** The listed cells, in step with the picture. */
export function list(viewer: Viewer, say: () => void): HTMLElement {
  const { sweep, chosen, choose, pointer, ends } = viewer;
  const name = `interp-list${++lists}-`;
  const box = h("div.bars", { role: "listbox", tabindex: 0 });
  const caption = h("span");
  const note = h("div.muted");
  let shown: Entry[] = [];

  const mark = () => {
    const at = chosen.value;
    let active = "";
    [...box.children].forEach((row, i) => {
      const entry = shown[i];
      const held = !!at && !!entry && sweep.value.axes.every((axis, k) => at[axis] === entry.at[k]);
      row.setAttribute("aria-selected", `${held}`);
      if (held) active = row.id;
    });
    if (active) box.setAttribute("aria-activedescendant", active);
    else box.removeAttribute("aria-activedescendant");
  };
  watch(
    ends,
    () => {
      shown = listed(viewer);
      const { zero, bars: drawn } = bars(viewer, shown);
      box.replaceChildren(
        ...drawn.map((bar, i) => {
          const missing = Number.isNaN(bar.value);
          const track = h("span.track");
          track.style.setProperty("--zero", `${zero}px`);
          const piece = (kind: string, left: number, width: number) => {
            const element = h(`span.${kind}`);
            element.style.cssText = `left:${left}px;width:${width}px`;
            track.append(element);
            return element;
          };
          if (missing) piece("none", 0, TRACK);
          else if (bar.value) {
            const element = piece(bar.towards ? "towards" : "against", bar.from, Math.max(1, bar.to - bar.from));
            element.classList.toggle("interp-broken", bar.broken);
          }
          if (finite(bar.low) && finite(bar.high)) piece("span", bar.low, Math.max(1, bar.high - bar.low));
          const number = missing ? "" : signed(bar.value);
          return h(
            "div",
            { role: "option", id: name + i },
            h("span.mono", { title: bar.name }, bar.name),
            track,
            h("span", {}, number),
          );
        }),
      );
      const { axes, quantity, pairs, estimated } = sweep.value;
      const what = viewer.quantity.value === "recovery" ? quantity : "effect";
      caption.textContent = `${axes.length > 1 ? "Strongest components" : "Layers"}, ${estimated ? (viewer.source.value === "exact" ? "exact " : "estimated ") : ""}${what}`;
      box.setAttribute("aria-label", caption.textContent);
      const thin = drawn.some(({ low }) => finite(low));
      const said = thin ? [`thin line: 95 % interval over ${pairs} pairs`] : [];
      if (estimated && viewer.source.value === "estimate") said.push("by estimates alone");
      note.style.minHeight = `${14 * sweep.value.lines}px`;
      if (axes.length === 1) {
        const [unit, from] = [viewer.quantity.value, viewer.source.value];
        said.unshift(sweep.value.meaning[unit]);
        said.push(...viewer.slice.value.form.marks[from][unit]);
      }
      note.replaceChildren(...said.map((line) => h("div", {}, line)));
      // Of many layers each has less room, as in the picture.
      box.style.setProperty("--pitch", `${clamp(HIGH / shown.length, 13, 19)}px`);
      mark();
    },
    mark,
  );
  const at = (event: Event) => {
    const row = (event.target as HTMLElement).closest("[role=option]");
    const entry = row ? shown[[...box.children].indexOf(row)] : undefined;
    return entry && atOf(sweep.peek().axes, entry);
  };
  on(box, {
    click(event) {
      const found = at(event);
      if (found) choose(found);
    },
    dblclick(event) {
      if (at(event)) say();
    },
    pointerover(event) {
      pointer.value = at(event);
    },
    pointerleave() {
      pointer.value = undefined;
    },
  });
  keys(box, (key) => {
    const by = { ArrowUp: -1, ArrowDown: 1, Home: -1e9, End: 1e9 }[key];
    if (key === "Enter") say();
    else if (key === "Escape") choose({});
    else if (by) {
      const now = [...box.children].findIndex((row) => row.getAttribute("aria-selected") === "true");
      const next = shown[now < 0 ? 0 : clamp(now + by, 0, shown.length - 1)];
      if (next) choose(atOf(sweep.peek().axes, next));
    } else return false;
    return true;
  });
  const heading = h("div.caption", {}, caption);
  return h("div.panel.list", {}, extras(viewer, "before"), heading, box, note, extras(viewer, "after"));
}
