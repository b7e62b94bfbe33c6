import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { stageRef } from "./controls";
import { knownMpp } from "./state";

export interface Bar {
  px: number;
  text: string;
}

const bar = signal<Bar | null>(null);

/** A round length of about a fifth of the width; in pixels where nobody knows the scale. zoom: screen per image pixels. */
export function barFor(width: number, zoom: number, mpp: number | null): Bar {
  const unit = mpp ?? 1;
  const about = (width / 5 / zoom) * unit;
  const power = 10 ** Math.floor(Math.log10(about));
  const length = [5, 2, 1].map((step) => step * power).find((each) => each <= about) ?? power;
  const text = mpp === null ? `${length} px` : length < 1000 ? `${length} µm` : `${length / 1000} mm`;
  return { px: (length / unit) * zoom, text };
}

export function ScaleBar() {
  const stage = stageRef.value;
  const mpp = knownMpp.value;
  useEffect(() => {
    if (!stage) return;
    const update = () => {
      const scene = stage.scene;
      const now = scene && barFor(Math.min(stage.element.clientWidth, 1200), scene.zoom, mpp);
      if (now?.text !== bar.value?.text || Math.abs((now?.px ?? 0) - (bar.value?.px ?? 0)) > 0.05) bar.value = now;
    };
    for (const name of ["update-viewport", "open", "resize"] as const) stage.osd.addHandler(name as "open", update);
    update();
    return () => {
      for (const name of ["update-viewport", "open", "resize"] as const) stage.osd.removeHandler(name as "open", update);
    };
  }, [stage, mpp]);
  if (!bar.value) return null;
  return (
    <div class="scale" title={mpp === null ? "the scale is unknown" : `${mpp} µm per pixel`}>
      <span>{bar.value.text}</span>
      <svg width={bar.value.px} height="6" aria-hidden="true">
        <rect width={bar.value.px} height="6" />
      </svg>
    </div>
  );
}
