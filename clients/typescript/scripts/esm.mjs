// Writes the entry for ES modules. It re-exports the one build, so that `import` and `require` in one process share
// every class: an error of either is an `instanceof` of both.
import { writeFileSync } from "node:fs";

for (const name of ["index.mjs", "index.d.mts"]) {
  writeFileSync(new URL(`../dist/${name}`, import.meta.url), 'export * from "./index.js";\n');
}
