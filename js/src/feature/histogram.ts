import { tag } from "../draw/svg";
import { h, on } from "../ui/dom";
import { clamp, keys, step } from "../ui/keys";
import { type Drawn, place } from "../ui/svg";
import { watch } from "../ui/watch";
import type { Viewer } from "./view";
import { ofBar } from "./words";

/** The histogram: a bar shows the places of the tenth that its middle is in. */
export function histogram(viewer: Viewer, [caption, width, height, body]: Drawn): HTMLElement[] {
  const { bars, held, pointer, tenth, choose, ends, feature } = viewer;
  const [count, across, high] = feature.bars;
  const wide = across / count;
  const element = h("div.drawn.histogram", {
    role: "slider",
    tabindex: 0,
    "aria-label": "histogram of its activations",
    "aria-valuemin": 0,
    "aria-valuemax": count,
  });
  const marks = () => {
    const { bar } = held.value;
    const over = pointer.value.bar ?? bar;
    let found = "";
    const inside = [...bars.keys()].filter(
      (i) => tenth.value && (bars[i]?.low ?? 0) <= tenth.value && tenth.value <= (bars[i]?.high ?? 0) && bars[i]?.count,
    );
    const [first, last] = [inside[0], inside.at(-1)];
    if (first !== undefined && last !== undefined)
      found += tag("path", { class: "interp-of-tenth", d: `M${first * wide} ${high + 1.5}H${(last + 1) * wide - 1}` });
    if (over !== undefined)
      found += tag("rect", { class: "interp-ring", x: over * wide, y: 0, width: wide - 1, height: high });
    return found;
  };
  const hold = (bar: number | undefined) => {
    held.value = bar === undefined ? {} : { bar };
    choose(bar === undefined ? 0 : (bars[bar]?.tenth ?? 0));
  };
  const under = ({ clientX }: MouseEvent) => {
    const box = element.querySelector("svg")?.getBoundingClientRect();
    if (!box?.width) return undefined;
    return clamp(Math.floor((count * (clientX - box.left)) / (box.width * (across / width))), 0, count - 1);
  };
  watch(
    ends,
    () => place(element, width, height, body + marks()),
    () => {
      const { bar } = held.value;
      element.setAttribute("aria-valuenow", `${(bar ?? -1) + 1}`);
      element.setAttribute("aria-valuetext", bar === undefined ? "all" : ofBar(viewer, bar));
    },
  );
  on(element, {
    click(event) {
      const bar = under(event);
      hold(bar === held.peek().bar ? undefined : bar);
    },
    pointermove(event) {
      const bar = under(event);
      if (bar !== pointer.peek().bar) pointer.value = { bar };
    },
    pointerleave() {
      pointer.value = {};
    },
  });
  keys(element, (key) => {
    const by = step(key);
    if (key === "Escape") hold(undefined);
    else if (by) hold(clamp((held.peek().bar ?? (by[1] - by[0] > 0 ? -1 : count)) - by[0] + by[1], 0, count - 1));
    else return false;
    return true;
  });
  return [h("div.caption", {}, h("span", {}, caption)), element];
}
