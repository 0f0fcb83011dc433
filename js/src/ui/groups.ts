import type { ReadonlySignal, Signal } from "@preact/signals-core";
import { button, enable, enabled, h } from "./dom";
import { menu } from "./menu";
import type { Mounted } from "./mount";
import { watch } from "./watch";
import { plural } from "./words";

/** Name → its nodes, and whether they are drawn as one. */
export type Groups = Record<string, { nodes: string[]; folded: boolean }>;

/** A view whose nodes can be marked and grouped. */
export interface Grouping extends Mounted {
  groups: ReadonlySignal<Groups>;
  /** The nodes that are marked for a group. */
  marked: Signal<ReadonlySet<string>>;
  /** Draw a group as one pill, or its nodes. */
  fold(name: string, folded: boolean): void;
}

/** Mark nodes for a group, or no longer where all of them are marked. */
export function mark({ marked }: Grouping, nodes: string[]): void {
  const next = new Set(marked.peek());
  const add = !nodes.every((node) => next.has(node));
  for (const node of nodes) next[add ? "add" : "delete"](node);
  marked.value = next;
}

/** The menu that makes a group of the marked nodes, and renames, unfolds and ends the groups that there are. */
export function groupMenu(viewer: Grouping): HTMLElement {
  const { groups, marked, fold, rpc, fail, problem, ends } = viewer;
  const ask = (method: string, params: Record<string, unknown>) => {
    problem.hidden = true;
    return rpc.request(method, params).catch(fail);
  };
  const field = (label: string, value: string, done: (text: string) => void) => {
    const input: HTMLInputElement = h("input.field", {
      "aria-label": label,
      placeholder: "name",
      maxlength: 80,
      value,
    });
    input.addEventListener("keydown", ({ key }) => {
      if (key === "Enter") done(input.value);
    });
    return input;
  };
  const hint = h("div.muted");
  const make = () => {
    if (!enabled(press)) return;
    if (!name.value.trim()) return name.focus();
    ask("group", { name: name.value, nodes: [...marked.peek()] }).then((done) => {
      if (!done) return;
      marked.value = new Set();
      name.value = "";
    });
  };
  const name = field("Name of the new group", "", make);
  const press = button("Group", make);
  const rows = h("div.groups");
  const element = menu("Group", hint, h("div.line", {}, name, press), rows);
  element.addEventListener("toggle", () => {
    if (element.open && enabled(press)) name.focus();
  });
  watch(
    ends,
    () => {
      const count = marked.value.size;
      enable(press, count > 1);
      name.readOnly = count < 2;
      hint.textContent = count
        ? `${plural(count, "node")} marked`
        : "shift-click nodes, or press G on them, to mark them";
    },
    () => {
      rows.replaceChildren(
        ...Object.entries(groups.value).map(([group, { nodes, folded }]) => {
          const rename = field(`Name of ${group}`, group, (text) => {
            if (text.trim() && text !== group) ask("rename", { name: group, to: text });
          });
          const turn = button(folded ? "Unfold" : "Fold", () => fold(group, !folded));
          const end = button("Ungroup", () => ask("ungroup", { name: group }));
          return h("div.line", { title: nodes.join(", ") }, rename, turn, end);
        }),
      );
    },
  );
  return element;
}
