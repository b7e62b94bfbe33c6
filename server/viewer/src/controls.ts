// Keys, and the address that opens the same view again.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Scene, Stage } from "./stage";
import { about, chosen, foundMasks, lookOf, looks, picked, setLook } from "./state";

export const stageRef = signal<Stage | null>(null);

export const KEYS: [string, string][] = [
  ["arrows", "pan"],
  ["+ and -", "zoom"],
  ["0", "the whole image"],
  ["R", "turn by 90 degrees"],
  ["1 to 9", "a mask on or off"],
  ["A", "all masks on or off"],
  ["F", "fill"],
  ["O", "outlines"],
  ["N and P", "next and previous mask"],
  ["Esc", "nothing selected"],
];

export function useKeys(): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
      if (act(event)) {
        event.preventDefault();
        event.stopPropagation();
      }
    };
    // before OpenSeadragon, which has keys of its own
    window.addEventListener("keydown", pressed, true);
    return () => window.removeEventListener("keydown", pressed, true);
  }, []);
}

let current = -1;

function act(event: KeyboardEvent): boolean {
  const stage = stageRef.value;
  if (!stage) return false;
  const onControl = /^(BUTTON|SUMMARY|A)$/.test((event.target as HTMLElement).tagName);
  const found = foundMasks.value;
  const pan = (x: number, y: number) => {
    const bounds = stage.osd.viewport.getBounds();
    const centre = stage.osd.viewport.getCenter();
    centre.x += x * bounds.width * 0.2;
    centre.y += y * bounds.height * 0.2;
    stage.osd.viewport.panTo(centre);
    stage.osd.viewport.applyConstraints();
  };
  switch (event.key) {
    case "ArrowLeft":
      pan(-1, 0);
      return true;
    case "ArrowRight":
      pan(1, 0);
      return true;
    case "ArrowUp":
      pan(0, -1);
      return true;
    case "ArrowDown":
      pan(0, 1);
      return true;
    case "+":
    case "=":
      stage.zoomBy(1.5);
      return true;
    case "-":
      stage.zoomBy(1 / 1.5);
      return true;
    case "0":
      stage.home();
      return true;
    case "Escape":
      picked.value = chosen.value = null;
      return !onControl;
  }
  const key = event.key.toLowerCase();
  if (key === "r") stage.turnBy(event.shiftKey ? -90 : 90);
  else if (key === "a") {
    const on = !found.some((mask) => lookOf(mask.mask_id).shown);
    for (const mask of found) setLook(mask.mask_id, { shown: on });
  } else if (key === "f") {
    const filled = found.some((mask) => lookOf(mask.mask_id).fill > 0);
    for (const mask of found) setLook(mask.mask_id, { fill: filled ? 0 : 0.35 });
  } else if (key === "o") {
    const outlined = found.some((mask) => lookOf(mask.mask_id).outline);
    for (const mask of found) setLook(mask.mask_id, { outline: !outlined });
  } else if (key === "n" || key === "p") {
    const withBox = found.filter((mask) => mask.bbox);
    if (!withBox.length) return true;
    current = (current + (key === "n" ? 1 : withBox.length - 1) + withBox.length) % withBox.length;
    stage.fit(withBox[current]!.bbox!);
  } else if (/^[1-9]$/.test(key) && found[Number(key) - 1]) {
    const { mask_id } = found[Number(key) - 1]!;
    setLook(mask_id, { shown: !lookOf(mask_id).shown });
  } else return false;
  return true;
}

/** The view as the part of an address behind #, kept up to date; and taken up when the page opens. */
export function watchScene(stage: Stage): () => void {
  const asked = readScene(location.hash);
  let timer = 0;
  const opened = () => {
    if (!asked) return;
    // a handler of "open" runs before the picture lies where it will
    requestAnimationFrame(() => {
      stage.setScene(asked.scene);
      const hidden = new Set(asked.hidden);
      for (const mask of foundMasks.value) if (hidden.has(mask.mask_id)) setLook(mask.mask_id, { shown: false });
    });
  };
  stage.osd.addOnceHandler("open", opened);
  const write = () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      const scene = stage.scene;
      if (scene && !document.hidden) {
        try {
          history.replaceState(null, "", `#${sceneText(scene)}`);
        } catch {
          // a page inside a chat has no address of its own
        }
      }
    }, 300);
  };
  stage.onMoved = write;
  return looks.subscribe(() => about.value && write());
}

export function sceneText(scene: Scene): string {
  const round = (value: number, digits: number) => Number(value.toFixed(digits));
  const hidden = foundMasks.value.filter((mask) => !lookOf(mask.mask_id).shown).map((mask) => mask.mask_id);
  const parts = [`x=${round(scene.x, 1)}`, `y=${round(scene.y, 1)}`, `zoom=${round(scene.zoom, 5)}`];
  if (scene.turn % 360) parts.push(`turn=${round(scene.turn % 360, 1)}`);
  if (hidden.length) parts.push(`hidden=${hidden.join(",")}`);
  return parts.join("&");
}

export function readScene(hash: string): { scene: Scene; hidden: string[] } | null {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const [x, y, zoom, turn] = ["x", "y", "zoom", "turn"].map((name) => Number(query.get(name) ?? (name === "turn" ? 0 : NaN)));
  if (![x, y, zoom, turn].every(Number.isFinite) || zoom! <= 0) return null;
  return { scene: { x: x!, y: y!, zoom: zoom!, turn: turn! }, hidden: (query.get("hidden") ?? "").split(",").filter(Boolean) };
}
