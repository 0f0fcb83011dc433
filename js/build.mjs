// Bundles each widget into src/interp/widgets/static: one script and one style sheet, nothing else at run time.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { build } from "esbuild";

const LIMIT = 37_000; // bytes of script: every widget in a notebook carries its own copy
// A folder with an index is a widget; the Makefile finds them in the same way.
const entry = (name) => `src/${name}/index.ts`;
const widgets = readdirSync(join(import.meta.dirname, "src")).filter((name) =>
  existsSync(join(import.meta.dirname, entry(name))),
);
const palette = JSON.parse(readFileSync(join(import.meta.dirname, "../src/interp/views/kit/palette.json"), "utf8"));
/** A style sheet whose `var(--palette--a--b)` are the palette's values. */
function coloured(css) {
  return css.replace(/var\(--palette--([\w-]+)\)/g, (name, path) => {
    const value = path.split("--").reduce((part, key) => part?.[key], palette);
    if (value === undefined) throw new Error(`the palette has no ${name}`);
    return value;
  });
}
const styles = {
  name: "styles",
  setup: ({ onLoad }) =>
    onLoad({ filter: /\.css$/ }, ({ path }) => ({ contents: coloured(readFileSync(path, "utf8")), loader: "css" })),
};
const { metafile } = await build({
  plugins: [styles],
  entryPoints: Object.fromEntries(widgets.map((name) => [name, entry(name)])),
  absWorkingDir: import.meta.dirname,
  outdir: "../src/interp/widgets/static",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  metafile: true,
});

// What stands in for the kernel in a page of its own (`interp/widgets/alone.py`).
await build({
  entryPoints: { alone: "src/host/alone.ts" },
  absWorkingDir: import.meta.dirname,
  outdir: "../src/interp/widgets/static",
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "interpAlone",
  target: "es2022",
  charset: "utf8",
});

/**
 * The page has one sheet of styles for all: confine each bundle's rules to its own frame, whose class is the bundle's
 * name. No rule gets more specific by it.
 */
function confined(css, name) {
  const own = `:where(.interp-${name})`;
  const one = (selector) => {
    if (selector.split("(").length !== selector.split(")").length) throw new Error(`cannot confine ${selector}`);
    return selector.includes(".interp-frame")
      ? selector.replaceAll(".interp-frame", `.interp-frame${own}`)
      : `${own} ${selector}`;
  };
  // A list of selectors: all that stands before an opening brace and is no at-rule.
  const list = (selectors) =>
    selectors
      .split(/,(?![^(]*\))/)
      .map(one)
      .join(",");
  return css.trim().replace(/(?<=^|[{}])[^{}@]+(?=\{)/g, list);
}

for (const path of Object.keys(metafile.outputs).filter((path) => path.endsWith(".css"))) {
  const file = join(import.meta.dirname, path);
  writeFileSync(file, confined(readFileSync(file, "utf8"), basename(path, ".css")));
}
for (const [path, { bytes }] of Object.entries(metafile.outputs)) {
  console.log(`${path}: ${bytes} bytes`);
  if (bytes > LIMIT) throw new Error(`${path} has ${bytes} bytes; the limit is ${LIMIT}`);
}
