// What VS Code's notebook page does round its widget runtime: modules by name, a kernel that messages go to and come
// from, a row for each output of a cell, and the listeners that it puts on the page.
import { activate } from "./ipywidgets.js";

const VIEW = "application/vnd.jupyter.widget-view+json";
const CLEARING = 0.4; // seconds after a cell has begun: updates of what is shown first within them never arrive
Object.assign(window, { heard: [], saved: [], refused: [], ended: false });

// The modules that widgets are loaded by.
const modules = {};
const loading = {};
window.define = (...given) => {
  const name = typeof given[0] === "string" ? given[0] : document.currentScript.dataset.module;
  const needs = given.find(Array.isArray) ?? [];
  modules[name] = given.at(-1)(...needs.map((need) => modules[need]));
};
const load = (name) => {
  if (name in modules) return modules[name];
  loading[name] ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: `${name}.js` });
    script.dataset.module = name;
    script.onload = () => resolve(modules[name]);
    script.onerror = () => reject(new Error(`no module ${name}`));
    document.head.append(script);
  });
  return loading[name];
};
window.requirejs = (names, done, failed) => Promise.all(names.map(load)).then((all) => done(...all), failed);

// The kernel.
const targets = {};
const comms = new Map();
let count = 0;
class Comm {
  constructor(target, id) {
    Object.assign(this, { targetName: target, commId: id, isDisposed: false });
    comms.set(id, this);
  }
  open() {}
  send(data, _metadata, buffers = []) {
    if (window.ended) throw new Error("Cannot send");
    const numbers = buffers.map((buffer) => [...new Uint8Array(buffer.buffer ?? buffer)]);
    const msg = { header: { msg_id: `${++count}` } };
    kernel(this.commId, JSON.stringify(data), numbers).then(window.hear);
    return { msg };
  }
  close() {
    this.dispose();
  }
  dispose() {
    this.isDisposed = true;
    comms.delete(this.commId);
  }
}
const connection = {
  id: "kernel",
  name: "python3",
  clientId: "page",
  username: "",
  model: { id: "kernel", name: "python3" },
  status: "busy",
  connectionStatus: "connected",
  handleComms: true,
  isDisposed: false,
  hasComm: (id) => comms.has(id),
  createComm: (target, id) => comms.get(id) ?? new Comm(target, id),
  registerCommTarget: (name, opened) => Object.assign(targets, { [name]: opened }),
  removeCommTarget() {},
  requestCommInfo: async () => ({ content: { status: "ok", comms: {} } }),
  interrupt: () => new Promise(() => {}),
};
for (const name of ["statusChanged", "connectionStatusChanged", "iopubMessage", "unhandledMessage", "anyMessage"])
  connection[name] = { connect() {}, disconnect() {} };

activate();
window.vscIPyWidgets8.load();
const scripts = {
  widgetsRegisteredInRequireJs: new Set(["anywidget"]),
  loadWidgetScript: async () => {},
  successHandler() {},
  errorHandler: (name, module, _version, error) => console.error(`${module} ${name}: ${error}`),
};
const manager = new window.vscIPyWidgets.WidgetManager(connection, undefined, scripts, () => {});

// What a cell shows: a row for each output, whatever becomes of it.
const rows = new Map();
const forgotten = new Set();
let began = Number.NEGATIVE_INFINITY;
const element = (parent, name, attributes = {}) => {
  const made = parent.appendChild(document.createElement("div"));
  made.className = name;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const place = document.querySelector(".output_container");
async function render(box, data) {
  const id = data[VIEW]?.model_id;
  if (id && box.dataset.model === id) return;
  box.replaceChildren();
  delete box.dataset.model;
  if (id && manager.has_model(id)) {
    box.dataset.model = id;
    box.classList.add("cell-output-ipywidget-background");
    const label = { tabindex: "0", role: "region", "aria-label": "Interactive widget output" };
    const inner = element(box, "cell-output-ipywidget-background", label);
    element(inner, "cell-output");
    const model = await manager.get_model(id);
    const view = await manager.create_view(model, { el: inner });
    await manager.display_view(data, view, { node: inner });
    while (!inner.querySelector("section")) await new Promise(requestAnimationFrame);
    reachable(inner);
  } else if (data["text/html"]) box.innerHTML = data["text/html"];
  else element(box, "output-plaintext").textContent = data["text/plain"];
}
/** Half a second after a view is drawn, its buttons are made to be reached, and pressed, with the keyboard. */
function reachable(inner) {
  for (const button of inner.querySelectorAll("button:not([tabindex]), a[href]:not([tabindex])")) {
    button.setAttribute("tabindex", "0");
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      button.click();
    });
  }
}
const handlers = {
  execute_input({ at }) {
    handlers.clear_output();
    began = at;
    forgotten.clear();
  },
  clear_output() {
    rows.clear();
    place.replaceChildren();
  },
  display_data({ data, id, at }) {
    const box = element(element(place, "output"), "");
    if (id) rows.set(id, box);
    if (id && at - began < CLEARING) forgotten.add(id);
    return render(box, data);
  },
  update_display_data({ data, id }) {
    if (rows.has(id) && !forgotten.has(id)) return render(rows.get(id), data);
  },
  async comm_open({ comm: id, target, data, msg }) {
    const comm = new Comm(target, id);
    await targets[target]?.(comm, { ...msg, content: { comm_id: id, target_name: target, data } });
  },
  comm_msg: ({ comm: id, data, msg }) => comms.get(id)?.onMsg?.({ ...msg, content: { comm_id: id, data } }),
  comm_close: ({ comm: id, data, msg }) => comms.get(id)?.onClose?.({ ...msg, content: { comm_id: id, data } }),
};
let last = Promise.resolve();
/** Take messages one after the other. Their buffers are arrays of numbers. */
window.hear = (messages) => {
  for (const { type, buffers = [], ...given } of messages) {
    const header = { msg_id: `${++count}`, msg_type: type };
    const views = buffers.map((numbers) => new DataView(Uint8Array.from(numbers).buffer));
    const msg = { header, parent_header: {}, metadata: { version: "2.1.0" }, channel: "iopub", buffers: views };
    last = last.then(() => handlers[type]({ ...given, msg })).catch((error) => console.error(`${type}: ${error}`));
  }
  return last;
};

// The page's own ears.
addEventListener("keydown", ({ key }) => heard.push(key));
addEventListener(
  "click",
  (event) => {
    const link = event.target.closest?.("a[href^='data:']");
    if (!link) return;
    event.preventDefault();
    (/^data:[^,]*;base64,/.test(link.href) ? saved : refused).push([link.download, link.href]);
  },
  true,
);
window.ready = true;
