type Attributes = Record<string, string | number | boolean | ((event: never) => void) | undefined>;

/**
 * An element, `"tag"` or `"tag.class.class"` (classes get our prefix). Text becomes text nodes, never markup: a token's
 * string can hold anything. A function is a listener, and goes with its element.
 */
export function h<E extends HTMLElement = HTMLElement>(
  kind: string,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): E {
  const [tag = "", ...names] = kind.split(".");
  const element = document.createElement(tag);
  for (const name of names) element.classList.add(`interp-${name}`);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value as EventListener);
    else if (value !== undefined && value !== false) element.setAttribute(key, String(value === true ? "" : value));
  }
  element.append(...children);
  return element as E;
}

/** Listeners that go with their element, by the event's name. */
export function on<T extends HTMLElement>(
  element: T,
  listeners: { [K in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[K]) => void },
): T {
  for (const [name, listener] of Object.entries(listeners))
    element.addEventListener(name, listener as EventListener, { passive: false });
  return element;
}

export function button(label: string, click: () => void, attributes: Attributes = {}): HTMLButtonElement {
  return h("button.button", { type: "button", click, ...attributes }, label);
}

/**
 * Say whether a button can be pressed. One that cannot keeps the focus, and with it the keys, which would go to the
 * notebook; what it does then is for its listener to know.
 */
export function enable(element: HTMLElement, can: boolean): void {
  if (can) element.removeAttribute("aria-disabled");
  else element.setAttribute("aria-disabled", "true");
}

export const enabled = (element: HTMLElement) => !element.hasAttribute("aria-disabled");

/** Native buttons of which one is pressed; `show` says which, and whether the others can be pressed. */
export function segmented<T extends string>(
  label: string,
  options: Record<T, string>,
  pick: (value: T) => void,
): { element: HTMLElement; show(value: T, live?: boolean): void } {
  const values = Object.keys(options) as T[];
  const buttons = values.map((value) => {
    const element = button(options[value], () => enabled(element) && pick(value));
    return element;
  });
  return {
    element: h("div.segmented", { role: "group", "aria-label": label }, ...buttons),
    show(value, live = true) {
      buttons.forEach((element, index) => {
        const pressed = values[index] === value;
        element.setAttribute("aria-pressed", String(pressed));
        enable(element, live || pressed);
      });
    },
  };
}

/** A native select of numbers. */
export function picker(label: string, numbers: number[], pick: (value: number) => void): HTMLSelectElement {
  const select: HTMLSelectElement = h("select.select", {
    "aria-label": label,
    change: () => pick(Number(select.value)),
  });
  select.append(...numbers.map((n) => h("option", { value: n }, `${label[0]}${n}`)));
  return select;
}

/** A drawing's width and height where `room` px of width can be had: as a picture, it keeps its form. */
export function fitted([width = 1, height = 1]: number[], room: number): [width: number, height: number] {
  const part = Math.min(1, room / width);
  return [width * part, height * part];
}

/** Give a canvas its size in CSS pixels; the pixels that it has are the screen's. */
export function fit(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D | null {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context?.scale(ratio, ratio);
  return context;
}
