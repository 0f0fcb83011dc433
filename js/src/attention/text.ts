import { colour, css, ink } from "../draw/colours";
import { h, on, segmented } from "../ui/dom";
import { clamp, keys, step } from "../ui/keys";
import { watch } from "../ui/watch";
import { heldToken, holding } from "./meta";
import { tokenName, type Viewer } from "./view";

let count = 0;

/** The prompt, coloured by what the held token looks at or by who looks at it. */
export function text(viewer: Viewer): HTMLElement {
  const { meta, selected, choose, theme, direction, pointer } = viewer;
  const name = `interp-${++count}-`;
  const tokens = meta.tokens.map((token, at) => {
    const glyph = meta.glyphs[at];
    return h("span.w", { role: "option", id: name + at, title: glyph && `part of ${glyph}` }, token);
  });
  const list = h("div.text.mono", { role: "listbox", tabindex: 0, "aria-label": "Tokens" }, ...tokens);
  const what = h("span");
  const ways = segmented("Direction", { from: "looks at", to: "looked at by" }, (value) => {
    direction.value = value;
  });
  const hold = (at: number | null) => choose(holding(at, direction.peek()));
  const under = (event: Event) => tokens.indexOf(event.target as HTMLElement);

  watch(
    viewer.ends,
    () => {
      const held = viewer.held.value;
      const from = direction.value === "from";
      const line = held === null ? undefined : viewer.heads.line(direction.value, held);
      const hidden = (at: number) => viewer.sink.value && (from ? at : held) === 0;
      tokens.forEach((token, at) => {
        const weight = line && !hidden(at) ? (line.values[at] as number) / viewer.top.value : 0;
        const fill = colour(theme.value.table, weight);
        token.style.background = weight > 0 ? css(fill) : "";
        // On a faint fill the text stays as it is: it would else change its shade from token to token.
        token.style.color = weight > 0.05 ? ink(fill) : "";
        token.classList.toggle("interp-held", at === held);
      });
    },
    () => {
      ways.show(direction.value);
      const held = viewer.held.value;
      if (held === null) what.textContent = "Text: click a token to hold it";
      else {
        const token = h("b.mono", {}, tokenName(viewer, held));
        what.replaceChildren(
          ...(direction.value === "from" ? ["Text: what ", token, " looks at"] : ["Text: what looks at ", token]),
        );
      }
    },
    () => {
      const held = heldToken(selected.value, direction.value);
      tokens.forEach((token, at) => {
        token.setAttribute("aria-selected", `${at === held}`);
      });
      list.setAttribute("aria-activedescendant", held === null ? "" : name + held);
    },
  );

  // A token that is shown shortened is shown in full while it is held.
  watch(viewer.ends, () => {
    const held = heldToken(selected.value, direction.value);
    for (const at of meta.long) {
      const token = tokens[at] as HTMLElement;
      token.textContent = meta.tokens[at] as string;
      if (at !== held) continue;
      viewer.full(at).then(
        (text) => {
          if (at === heldToken(selected.peek(), direction.peek())) token.textContent = text;
        },
        () => undefined,
      );
    }
  });

  on(list, {
    pointerover(event) {
      const token = under(event);
      if (token >= 0) pointer.value = { token };
    },
    pointerleave() {
      pointer.value = {};
    },
    click(event) {
      const token = under(event);
      if (token < 0) return;
      hold(token === heldToken(selected.peek(), direction.peek()) ? null : token);
      list.focus({ preventScroll: true });
    },
  });
  keys(list, (key) => {
    const by = step(key);
    const held = heldToken(selected.peek(), direction.peek());
    if (key === "Escape") hold(null);
    else if (by) hold(clamp((held ?? tokens.length) + by[0] + by[1], 0, tokens.length - 1));
    else return false;
    return true;
  });
  return h("div.panel.wide", {}, h("div.caption.brief", {}, what, ways.element), list);
}
