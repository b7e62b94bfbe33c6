// A picture for a paper or a case conference: what is on the screen, with legend and scale bar.

import { pdfOf } from "./pdf";
import { barFor } from "./scalebar";
import type { Stage } from "./stage";
import { colourOf, foundMasks, knownMpp, level, lookOf, nameOf } from "./state";

const LINE_PX = 26;

const JPEG_QUALITY = 0.95;

export async function figure(stage: Stage, kind: "png" | "pdf"): Promise<Blob> {
  const canvas = drawn(stage);
  if (kind === "png") return encoded(canvas, "image/png");
  const jpeg = new Uint8Array(await (await encoded(canvas, "image/jpeg")).arrayBuffer());
  return pdfOf(jpeg, canvas.width, canvas.height, canvas.width / devicePixelRatio);
}

function encoded(canvas: HTMLCanvasElement, media: string): Promise<Blob> {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture could not be made"))), media, JPEG_QUALITY);
  });
}

function drawn(stage: Stage): HTMLCanvasElement {
  const picture = stage.snapshot();
  const ratio = devicePixelRatio;
  const shown = foundMasks.value.filter((mask) => lookOf(mask.mask_id).shown);
  const line = LINE_PX * ratio;
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height + line * (shown.length + 1) + 12 * ratio;
  const context = canvas.getContext("2d")!;
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0);
  scaleBar(context, stage, picture.height, ratio);
  context.textBaseline = "middle";
  shown.forEach((mask, number) => {
    const y = picture.height + 6 * ratio + (number + 0.5) * line;
    context.fillStyle = colourOf(mask);
    context.strokeStyle = "#444444";
    context.lineWidth = ratio;
    context.beginPath();
    context.rect(10 * ratio, y - 8 * ratio, 16 * ratio, 16 * ratio);
    context.fill();
    context.stroke();
    context.fillStyle = "#000000";
    context.font = `${15 * ratio}px system-ui, sans-serif`;
    const count = mask.count === null ? "" : ` (${mask.count.toLocaleString("en")})`;
    const sure = level(mask.reliability) === "low" ? ", reliability low" : "";
    context.fillText(`${nameOf(mask)}${count}${sure}`, 36 * ratio, y);
  });
  context.fillStyle = "#555555";
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  const [made] = shown.map((mask) => `${mask.provenance.model}, tissuetalk ${mask.provenance.version}. `);
  context.fillText(`${made ?? ""}Research use only.`, 10 * ratio, canvas.height - line * 0.5 - 3 * ratio);
  return canvas;
}

function scaleBar(context: CanvasRenderingContext2D, stage: Stage, bottom: number, ratio: number): void {
  const scene = stage.scene;
  if (!scene) return;
  const bar = barFor(Math.min(stage.element.clientWidth, 1200), scene.zoom, knownMpp.value);
  context.font = `${14 * ratio}px system-ui, sans-serif`;
  const width = Math.max(bar.px * ratio, context.measureText(bar.text).width);
  const [x, y] = [16 * ratio, bottom - 18 * ratio];
  context.fillStyle = "#ffffffe8";
  context.fillRect(x - 8 * ratio, y - 24 * ratio, width + 16 * ratio, 36 * ratio);
  context.fillStyle = "#000000";
  context.fillRect(x, y, bar.px * ratio, 6 * ratio);
  context.textBaseline = "alphabetic";
  context.fillText(bar.text, x, y - 5 * ratio);
}
