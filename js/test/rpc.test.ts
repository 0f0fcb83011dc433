import { describe, expect, it, vi } from "vitest";
import { Cancelled, connect } from "../src/host/rpc";
import { Host, settled } from "./host";

function connected() {
  const host = new Host();
  const ends = new AbortController();
  return { host, ends, rpc: connect(host, ends.signal) };
}
const idOf = (host: Host, at = -1) => host.sent.at(at)?.id;

describe("a request", () => {
  it("is answered by its own reply and buffers", async () => {
    const { host, rpc } = connected();
    const [one, two] = [rpc.request("a", { x: 1 }), rpc.request("b")];
    expect(host.sent.map(({ method, params }) => [method, params])).toEqual([
      ["a", { x: 1 }],
      ["b", {}],
    ]);
    host.deliver({ id: idOf(host, 1), reply: { from: "b" } });
    host.deliver({ id: idOf(host, 0), reply: { from: "a" } }, [new Uint8Array([7]).buffer]);
    expect((await one).data).toEqual({ from: "a" });
    expect(((await one).buffers[0] as DataView).getUint8(0)).toBe(7);
    expect((await two).data).toEqual({ from: "b" });
  });

  it("fails with the kernel's error", async () => {
    const { host, rpc } = connected();
    const asked = rpc.request("a");
    host.deliver({ id: idOf(host), error: "no head 14" });
    await expect(asked).rejects.toThrow("no head 14");
  });

  it("reports progress before its reply", async () => {
    const { host, rpc } = connected();
    const progress = vi.fn();
    const asked = rpc.request("a", {}, { progress });
    host.deliver({ id: idOf(host), progress: [1, 4] });
    host.deliver({ id: idOf(host), progress: [2, 4] });
    host.deliver({ id: idOf(host), reply: {} });
    await asked;
    host.deliver({ id: idOf(host), progress: [3, 4] });
    expect(progress.mock.calls).toEqual([
      [1, 4],
      [2, 4],
    ]);
  });

  it("that cannot be sent says what happened and what to do", async () => {
    const { host, rpc } = connected();
    host.send = () => {
      throw new Error("Cannot send");
    };
    await expect(rpc.request("a")).rejects.toThrow(/restarted: run its cell again/);
  });

  it("that an idle kernel leaves unanswered is lost; a busy one's waits", async () => {
    vi.useFakeTimers();
    const { host, rpc } = connected();
    const kernel = { status: "busy" };
    Object.assign(host, { widget_manager: { kernel } });
    const failed = vi.fn();
    rpc.request("a").catch(failed);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(failed).not.toHaveBeenCalled();
    kernel.status = "idle";
    await vi.advanceTimersByTimeAsync(6000);
    expect(`${failed.mock.calls[0]}`).toContain("run its cell again");
    vi.useRealTimers();
  });

  it("is cancelled, and the kernel is told", async () => {
    const { host, rpc } = connected();
    const stop = new AbortController();
    const asked = rpc.request("a", {}, { signal: stop.signal });
    const id = idOf(host);
    stop.abort();
    await expect(asked).rejects.toBeInstanceOf(Cancelled);
    expect(host.sent.at(-1)).toEqual({ id, cancel: true });
    host.deliver({ id, reply: {} });
    await expect(rpc.request("a", {}, { signal: stop.signal })).rejects.toBeInstanceOf(Cancelled);
    expect(host.sent).toHaveLength(2);
  });

  it("outlives malformed messages", async () => {
    const { host, rpc } = connected();
    const asked = rpc.request("a");
    for (const message of [null, undefined, 5, "x", [], {}, { id: null }, { id: 3 }, { id: "other", reply: {} }]) {
      host.deliver(message);
    }
    host.deliver({ id: idOf(host), reply: { ok: true } });
    expect((await asked).data).toEqual({ ok: true });
    const unreadable = rpc.request("a");
    host.deliver({ id: idOf(host), reply: null });
    await expect(unreadable).rejects.toThrow("cannot be read");
  });

  it("ends with the view", async () => {
    const { host, rpc, ends } = connected();
    const asked = rpc.request("a");
    ends.abort();
    await expect(asked).rejects.toBeInstanceOf(Cancelled);
    await expect(rpc.request("b")).rejects.toBeInstanceOf(Cancelled);
    expect(host.count()).toBe(0);
  });
});

describe("of requests of which only the newest matters", () => {
  it("the first and the last are made", async () => {
    const { host, rpc } = connected();
    const asked = Array.from({ length: 1000 }, (_, at) => rpc.latest("select", { at }));
    const outcomes = Promise.allSettled(asked);
    expect(host.sent).toHaveLength(1);
    expect(rpc.busy("select")).toBe(true);
    host.deliver({ id: idOf(host), reply: { n: 0 } });
    await settled();
    expect(host.sent.map(({ params }) => params)).toEqual([{ at: 0 }, { at: 999 }]);
    host.deliver({ id: idOf(host), reply: { n: 999 } });
    const states = (await outcomes).map(({ status }) => status);
    expect(states.filter((state) => state === "fulfilled")).toHaveLength(2);
    expect(rpc.busy("select")).toBe(false);
  });

  it("an error lets the next one go", async () => {
    const { host, rpc } = connected();
    const [one, two] = [rpc.latest("a", { at: 1 }), rpc.latest("a", { at: 2 })];
    host.deliver({ id: idOf(host), error: "busy" });
    await expect(one).rejects.toThrow("busy");
    await settled();
    host.deliver({ id: idOf(host), reply: {} });
    await two;
  });
});
