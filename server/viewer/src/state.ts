// What is shown, as signals: any part of the page that reads one is drawn again when it changes.

import { computed, signal } from "@preact/signals";
import type { Backend } from "./backend";
import type { AboutImage, AboutResult, Mask, ObjectRow } from "./types";

export interface MaskLook {
  shown: boolean;
  fill: number;
  outline: boolean;
}

export interface Picked {
  mask: Mask;
  id: number;
  at: [number, number];
  row: ObjectRow | null;
  problem: string | null;
}

export type Palette = "result" | "safe";
export type Theme = "auto" | "light" | "dark";

/** Okabe and Ito (2008), in an order that starts with what stands out from pink and purple. */
export const SAFE_COLOURS = ["#f0e442", "#56b4e9", "#009e73", "#e69f00", "#0072b2", "#d55e00", "#ffffff", "#000000"];

export const backend = signal<Backend | null>(null);
export const image = signal<AboutImage | null>(null);
export const about = signal<AboutResult | null>(null);
export const looks = signal<Record<string, MaskLook>>({});
export const palette = signal<Palette>("result");
export const theme = signal<Theme>("auto");
export const words = signal("");
export const activeMask = signal<string | null>(null);
export const hovered = signal<{ mask: Mask; id: number | null } | null>(null);
export const picked = signal<Picked | null>(null);
export const chosen = signal<{ maskId: string; ids: Set<number> } | null>(null);
export const problem = signal<{ code: string; message: string } | null>(null);
export const note = signal("");
export const busy = signal("");

export const masks = computed<Mask[]>(() => about.value?.result.masks ?? []);
export const foundMasks = computed(() => masks.value.filter((mask) => mask.found));

/** µm per pixel where somebody said it. */
export const knownMpp = computed<number | null>(() => {
  const info = about.value?.result.image ?? image.value;
  return info && (info.mpp_source === "file" || info.mpp_source === "given") ? info.mpp : null;
});

export function colourOf(mask: Mask): string {
  if (palette.value === "result") return mask.colour;
  const number = foundMasks.value.findIndex((each) => each.mask_id === mask.mask_id);
  return SAFE_COLOURS[(number < 0 ? 0 : number) % SAFE_COLOURS.length]!;
}

export function nameOf(mask: Mask): string {
  return mask.free_form ?? mask.target;
}

export function lookOf(maskId: string): MaskLook {
  return looks.value[maskId] ?? { shown: true, fill: 0.25, outline: true };
}

export function setLook(maskId: string, change: Partial<MaskLook>): void {
  looks.value = { ...looks.value, [maskId]: { ...lookOf(maskId), ...change } };
}

export function level(reliability: number | null): "high" | "medium" | "low" | "unknown" {
  if (reliability === null) return "unknown";
  return reliability >= 0.85 ? "high" : reliability >= 0.7 ? "medium" : "low";
}
