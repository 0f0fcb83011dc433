import { signal } from "@preact/signals-core";
import { button, h } from "../ui/dom";
import { watch } from "../ui/watch";
import { brief, type Steer } from "./meta";
import type { Said, Viewer } from "./view";

const probability = (value: number | null) => (value === null ? "–" : value.toFixed(3));

const plus = (value: number) => `${value > 0 ? "+" : ""}${brief(value)}`;
const length = (value: number | null) => (value === null ? "infinitely" : brief(value));

/** A strength as it is written: what the direction is multiplied by, and how many units that is. */
export function strengthOf({ unit, active }: Steer, percent: number): string {
  if (!percent) return "0: as it is";
  return `${plus((percent / 100) * unit)}${active ? ` = ${brief(percent / 100)} × its largest` : ""}`;
}

/** A prompt and a strength; below them what the model says with the feature added, and without. */
export function steer(viewer: Viewer, given: Steer): HTMLElement {
  const { rpc, said, ends } = viewer;
  const percent = signal(given.opens);
  const state = signal<{ waits?: boolean; problem?: string }>({});
  const [low, high, by] = given.range;

  const ask = () => {
    const wanted = { prompt: prompt.value, percent: percent.peek() };
    state.value = { waits: true };
    rpc.latest("steer", wanted).then(
      ({ data }) => {
        state.value = {};
        said.value = data as unknown as Said;
      },
      (error) => {
        // One that a newer question has taken the place of says nothing.
        if (error.message) state.value = { problem: error.message };
      },
    );
  };
  const prompt: HTMLTextAreaElement = h("textarea.field.prompt.mono", {
    rows: 1,
    spellcheck: "false",
    maxlength: 4000,
    placeholder: "a text to go on with",
    "aria-label": "text to go on with",
  });
  prompt.value = given.prompt;
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    ask();
  });
  const slider: HTMLInputElement = h("input.slider", {
    type: "range",
    min: low,
    max: high,
    step: by,
    value: given.opens,
    "aria-label": "strength",
    input: () => {
      percent.value = Number(slider.value);
    },
    change: () => {
      // Once asked, each strength is answered.
      if (said.peek() || state.peek().problem) ask();
    },
  });
  const size = h("span.size");
  const below = h("div.answer", { "aria-live": "polite" });

  watch(
    ends,
    () => {
      size.textContent = strengthOf(given, percent.value);
      slider.setAttribute("aria-valuetext", size.textContent);
    },
    () => {
      const { waits, problem } = state.value;
      const found = said.value;
      const line = problem
        ? h("p.error", { role: "alert" }, problem)
        : waits
          ? h("p.muted", {}, "asking the model …")
          : "";
      below.classList.toggle("interp-old", !!waits);
      below.replaceChildren(...[line, ...(found && !problem ? answer(found) : [])].filter(Boolean));
    },
  );
  return h(
    "div.steer",
    {},
    h("div.caption.brief", {}, h("span", {}, given.caption)),
    h("div.ask", {}, prompt, slider, size, button("Steer", ask)),
    below,
  );
}

function answer({ strength, added, stream, prompt, texts, tokens }: Said): HTMLElement[] {
  const sides = ["as it is", `with ${plus(strength)} of it`];
  const written = texts.map(([same, rest, ended], i) =>
    h(
      "div",
      {},
      h("div.caption", {}, h("span", {}, sides[i] ?? "")),
      h("div.written", {}, h("span.muted", {}, prompt), same, h("b", {}, rest)),
      ...(ended ? [h("div.muted", {}, ended)] : []),
    ),
  );
  const heads = ["next token", ...sides].map((name) => h("span.muted", { role: "columnheader" }, name));
  const rows = tokens.map(([token, before, after]) =>
    h(
      "div",
      { role: "row" },
      h("span.mono", { role: "cell" }, h("bdi", {}, token)),
      h("span", { role: "cell" }, probability(before)),
      h("b", { role: "cell" }, probability(after)),
    ),
  );
  const table = { role: "table", "aria-label": "Likeliest next tokens" };
  return [
    h("div.said", {}, ...written, h("div.next", table, h("div", { role: "row" }, ...heads), ...rows)),
    h("p.muted", {}, `adds a vector ${length(added)} long at every token, where the stream is ${length(stream)} long`),
  ];
}
