// Tiles that are on the screen or were a moment ago: asked for nearest first, a few at a time, forgotten when there are too many.

import type { Place } from "./types";

interface Entry<T> {
  value: T | null;
  weight: number;
  used: number;
  state: "waiting" | "ready" | "failed";
  failedAt: number;
}

export class TileCache<T> {
  private readonly entries = new Map<string, Entry<T>>();
  private readonly running = new Map<string, AbortController>();
  private wanted: { key: string; place: Place; distance: number }[] = [];
  private clock = 0;
  private weight = 0;

  constructor(
    private readonly load: (at: Place, signal: AbortSignal) => Promise<{ value: T | null; weight: number }>,
    private readonly drop: (value: T) => void,
    private readonly changed: (value: T | null, at: Place) => void,
    private readonly failed: (error: unknown) => void,
    private readonly mostWeight: number,
    private readonly atOnce: number,
  ) {}

  get loading(): number {
    return this.running.size + this.wanted.length;
  }

  /** undefined: not there yet. null: there is nothing in it. */
  get(at: Place): T | null | undefined {
    const entry = this.entries.get(keyOf(at));
    if (!entry || entry.state !== "ready") return undefined;
    entry.used = this.clock;
    return entry.value;
  }

  /** What the screen needs now, in the order in which it is fetched; what is no longer needed is not waited for. */
  want(places: Place[]): void {
    this.clock++;
    const keys = new Set(places.map(keyOf));
    for (const [key, controller] of this.running) if (!keys.has(key)) controller.abort();
    this.wanted = [];
    const now = Date.now();
    places.forEach((place, distance) => {
      const key = keyOf(place);
      const entry = this.entries.get(key);
      if (this.running.has(key) || entry?.state === "ready") return;
      if (entry?.state === "failed" && now - entry.failedAt < 3000) return;
      this.wanted.push({ key, place, distance });
    });
    this.next();
  }

  clear(): void {
    for (const controller of this.running.values()) controller.abort();
    for (const entry of this.entries.values()) if (entry.value !== null) this.drop(entry.value);
    this.entries.clear();
    this.wanted = [];
    this.weight = 0;
  }

  private next(): void {
    while (this.running.size < this.atOnce && this.wanted.length) {
      const { key, place } = this.wanted.shift()!;
      const controller = new AbortController();
      this.running.set(key, controller);
      let brought: T | null = null;
      this.load(place, controller.signal)
        .then(({ value, weight }) => {
          if (controller.signal.aborted) {
            if (value !== null) this.drop(value);
            return;
          }
          brought = value;
          this.entries.set(key, { value, weight, used: this.clock, state: "ready", failedAt: 0 });
          this.weight += weight;
          this.makeRoom();
        })
        .catch((error: unknown) => {
          if (controller.signal.aborted) return;
          this.entries.set(key, { value: null, weight: 0, used: this.clock, state: "failed", failedAt: Date.now() });
          this.failed(error);
        })
        .finally(() => {
          if (this.running.get(key) === controller) this.running.delete(key);
          this.next();
          this.changed(brought, place);
        });
    }
  }

  private makeRoom(): void {
    if (this.weight <= this.mostWeight) return;
    const oldest = [...this.entries].filter(([, entry]) => entry.used < this.clock).sort((a, b) => a[1].used - b[1].used);
    for (const [key, entry] of oldest) {
      if (this.weight <= this.mostWeight * 0.8) return;
      if (entry.value !== null) this.drop(entry.value);
      this.weight -= entry.weight;
      this.entries.delete(key);
    }
  }
}

function keyOf(at: Place): string {
  return `${at.z}/${at.x}/${at.y}`;
}
