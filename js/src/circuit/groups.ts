import { button, enable, enabled, h } from "../ui/dom";
import { menu } from "../ui/menu";
import { watch } from "../ui/watch";
import { plural } from "../ui/words";
import type { Viewer } from "./view";

/** The menu that makes a group of the marked nodes, and renames, unfolds and ends the groups that there are. */
export function groupMenu(viewer: Viewer): HTMLElement {
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
