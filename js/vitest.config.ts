import { defineConfig } from "vitest/config";

// A hundred redrawings take long where other work shares the machine.
export default defineConfig({
  test: { environment: "happy-dom", include: ["test/*.test.ts"], testTimeout: 30_000 },
});
