import { useEffect, useRef } from "preact/hooks";
import { Panel } from "./panel";
import { Stage } from "./stage";
import { about, backend, chosen, hovered, image, looks, nameOf, note, palette, picked, problem } from "./state";
import { ScaleBar } from "./scalebar";
import { Toolbar } from "./toolbar";
import { stageRef, useKeys, watchScene } from "./controls";
import { onCanvas } from "./pointing";
import { onDrawing, shapes } from "./draw";
import { Swipe } from "./compare";

export function ViewerPage() {
  return (
    <div class="viewer">
      <Toolbar />
      <div class="stage-and-panel">
        <Picture />
        <Panel />
      </div>
    </div>
  );
}

function Picture() {
  const place = useRef<HTMLDivElement>(null);
  const map = useRef<HTMLDivElement>(null);
  useKeys();
  useEffect(() => {
    const stage = new Stage(place.current!, backend.value!, map.current!);
    stageRef.value = stage;
    // for tests and benchmarks: what is on the screen, as numbers
    (window as unknown as { tissuetalk: object }).tissuetalk = { stage, backend: backend.value!, shapes: () => shapes.value };
    stage.onProblem = (error) => {
      const said = error as { code?: string; message: string };
      problem.value = { code: said.code ?? "error", message: said.message };
    };
    const stops = [onCanvas(stage), onDrawing(stage), watchScene(stage)];
    let shown = "";
    stops.push(
      image.subscribe((value) => {
        if (value && value.image_id !== shown) {
          shown = value.image_id;
          stage.open(value);
        }
      }),
      about.subscribe((value) => stage.show(value)),
    );
    for (const each of [looks, palette]) stops.push(each.subscribe(() => stage.repaint()));
    for (const each of [picked, chosen]) stops.push(each.subscribe(() => stage.redraw()));
    return () => stops.forEach((stop) => stop());
  }, []);
  return (
    <div class="picture">
      <div ref={place} class="stage" role="application" aria-label="Picture: drag to pan, wheel or plus and minus to zoom" />
      <div ref={map} class="minimap" aria-hidden="true" />
      <ScaleBar />
      <Swipe />
      <Hover />
      <Problem />
    </div>
  );
}

function Hover() {
  const over = hovered.value;
  return (
    <div class="hover" aria-live="off">
      {over ? (over.id === null ? nameOf(over.mask) : `${nameOf(over.mask)} ${over.id}`) : null}
    </div>
  );
}

function Problem() {
  return (
    <div class="messages" role="status">
      {problem.value ? (
        <div class="problem">
          <p>{problem.value.message}</p>
          <button type="button" onClick={() => (problem.value = null)}>
            Close
          </button>
        </div>
      ) : null}
      {note.value ? <div class="note">{note.value}</div> : null}
    </div>
  );
}
