// Hover and click: which object or mask lies there, and its numbers.

import type { Stage } from "./stage";
import { about, activeMask, backend, hovered, picked } from "./state";

/** Set by whoever draws: while it is true, clicks and drags are not about objects. */
export const drawing = { on: false };

export function onCanvas(stage: Stage): () => void {
  let last = 0;
  const over = (event: PointerEvent) => {
    if (event.pointerType !== "mouse" || event.buttons || drawing.on) return;
    const number = ++last;
    requestAnimationFrame(async () => {
      if (number !== last) return;
      const point = stage.imagePoint(event.clientX, event.clientY);
      const hit = point && (await stage.hit(...point));
      if (number === last) {
        hovered.value = hit ? { mask: hit.layer.mask, id: hit.id } : null;
        stage.element.classList.toggle("over-object", hit?.id != null);
      }
    });
  };
  const away = () => {
    last++;
    hovered.value = null;
  };
  const click = async (event: OpenSeadragonClick) => {
    if (!event.quick || drawing.on) return;
    const rect = stage.element.getBoundingClientRect();
    const point = stage.imagePoint(rect.left + event.position.x, rect.top + event.position.y);
    if (point) await pick(stage, ...point);
  };
  stage.element.addEventListener("pointermove", over);
  stage.element.addEventListener("pointerleave", away);
  stage.osd.addHandler("canvas-click", click as never);
  return () => {
    stage.element.removeEventListener("pointermove", over);
    stage.element.removeEventListener("pointerleave", away);
    stage.osd.removeHandler("canvas-click", click as never);
  };
}

interface OpenSeadragonClick {
  quick: boolean;
  position: { x: number; y: number };
}

export async function pick(stage: Stage, x: number, y: number): Promise<void> {
  const hit = await stage.hit(x, y);
  activeMask.value = hit ? hit.layer.mask.mask_id : null;
  if (!hit || hit.id === null) {
    picked.value = null;
    return;
  }
  const { mask } = hit.layer;
  const one = { mask, id: hit.id, at: [x, y] as [number, number], row: null, problem: null };
  picked.value = one;
  try {
    const row = await backend.value!.objectRow(about.value!.result.result_id, mask.mask_id, hit.id, [x, y]);
    if (picked.value === one) picked.value = { ...one, row };
  } catch (error) {
    if (picked.value === one) picked.value = { ...one, problem: (error as Error).message };
  }
}
