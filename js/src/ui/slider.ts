import type { Signal } from "@preact/signals-core";
import { h } from "./dom";
import { watch } from "./watch";

const STEPS = 300; // beyond, each is more than one edge

/** A slider for how many of a graph's edges are asked for: of many, the first few are chosen more finely. */
export function edgeSlider(ends: AbortSignal, edges: () => number, asked: Signal<number>, said: () => string) {
  const steps = () => Math.min(STEPS, edges());
  const power = () => (edges() > STEPS ? 2 : 1);
  const slider: HTMLInputElement = h("input.slider", {
    type: "range",
    min: 1,
    "aria-label": "edges",
    input: () => {
      asked.value = Math.max(1, Math.round(edges() * (Number(slider.value) / steps()) ** power()));
    },
  });
  watch(ends, () => {
    slider.max = `${steps()}`;
    slider.value = `${Math.ceil(steps() * (asked.value / (edges() || 1)) ** (1 / power()) - 1e-9)}`;
    slider.setAttribute("aria-valuetext", `${said()} edges`);
  });
  return slider;
}
