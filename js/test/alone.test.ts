import { describe, expect, it } from "vitest";
import { alone, key, parsed } from "../src/host/alone";
import { connect } from "../src/host/rpc";

const saved = parsed(
  JSON.stringify({
    traits: {
      selection: { layer: 1, head: 0 },
      atlas: { $bytes: btoa("\u0001\u0002") },
      deep: [{ $bytes: btoa("a") }],
    },
    answers: {
      'head {"head":2,"layer":1}': { data: { side: 3 }, buffers: [{ $bytes: btoa("xyz") }] },
      'function {"node":"1.0"}': { error: "the model was unloaded" },
    },
    silent: ["line"],
  }),
);
const asking = () => connect(alone(saved), new AbortController().signal);

describe("a page without a kernel", () => {
  it("has its bytes again, wherever they are", () => {
    expect(saved.traits.atlas).toEqual(new Uint8Array([1, 2]));
    expect(saved.traits.deep).toEqual([new Uint8Array([97])]);
    expect(alone(saved).get("atlas")).toBe(saved.traits.atlas);
  });

  it("finds an answer whatever the order of the parameters", async () => {
    expect(key("head", { layer: 1, head: 2 })).toBe(key("head", { head: 2, layer: 1 }));
    const { data, buffers } = await asking().request("head", { layer: 1, head: 2 });
    expect(data).toEqual({ side: 3 });
    expect(buffers).toEqual([new Uint8Array([120, 121, 122])]);
  });

  it("says why there is no answer", async () => {
    await expect(asking().request("function", { node: "1.0" })).rejects.toThrow("the model was unloaded");
    await expect(asking().request("steer", { prompt: "x" })).rejects.toThrow("this needs the model");
  });

  it("lets what nobody misses wait", async () => {
    const late = new Promise((resolve) => setTimeout(resolve, 20, "nothing"));
    expect(await Promise.race([asking().request("line", {}), late])).toBe("nothing");
  });

  it("keeps the selection", async () => {
    const rpc = asking();
    expect((await rpc.request("select", { query: 4 })).data).toEqual({ layer: 1, head: 0, query: 4 });
  });
});
