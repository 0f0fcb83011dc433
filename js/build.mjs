// Bundles each widget into src/interp/widgets/static: one script and one style sheet, nothing else at run time.
import { build } from "esbuild";

const LIMIT = 30_000; // bytes of script: every widget in a notebook carries its own copy
const { metafile } = await build({
  entryPoints: { attention: "src/attention/index.ts", patching: "src/patching/index.ts" },
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
for (const [path, { bytes }] of Object.entries(metafile.outputs)) {
  console.log(`${path}: ${bytes} bytes`);
  if (bytes > LIMIT) throw new Error(`${path} has ${bytes} bytes; the limit is ${LIMIT}`);
}
