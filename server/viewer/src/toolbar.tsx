import { useState } from "preact/hooks";
import { askMode, mode, modes } from "./app";
import type { PageBackend } from "./backend";
import { KEYS, sceneText, stageRef } from "./controls";
import { figure } from "./figure";
import { about, backend, image, note, palette, problem, theme, type Theme } from "./state";
import { save } from "./teach";

async function saveFigure(kind: "png" | "pdf"): Promise<void> {
  try {
    save(await figure(stageRef.value!, kind), `tissuetalk-${(about.value?.result.result_id ?? "image").slice(0, 12)}.${kind}`);
  } catch (error) {
    problem.value = { code: "error", message: (error as Error).message };
  }
}

async function copyLink(): Promise<void> {
  try {
    const result = about.value?.result.result_id;
    const shared = result ? await (backend.value as PageBackend).share(result) : location.href.split("#")[0]!;
    const scene = stageRef.value?.scene;
    const address = scene ? `${shared}#${sceneText(scene)}` : shared;
    await navigator.clipboard.writeText(address).catch(() => window.prompt("The address of this view", address));
    note.value = "The address of this view was copied. Whoever reaches this server can open it, for eight hours where it asks for a token.";
    setTimeout(() => (note.value = ""), 6000);
  } catch (error) {
    problem.value = { code: "error", message: (error as Error).message };
  }
}

export function Toolbar() {
  const [help, setHelp] = useState(false);
  const stage = stageRef.value;
  const next: Record<Theme, Theme> = { auto: "dark", dark: "light", light: "auto" };
  const info = about.value?.result.image ?? image.value;
  return (
    <header class="toolbar">
      {backend.value?.kind === "page" ? (
        <a href="/" class="home">
          tissuetalk
        </a>
      ) : (
        <span class="home">tissuetalk</span>
      )}
      <span class="what">
        {info ? `${info.width.toLocaleString("en")} × ${info.height.toLocaleString("en")} px` : ""}
        {info?.mpp ? `, ${Number(info.mpp.toPrecision(4))} µm/px (${info.mpp_source})` : ", scale unknown"}
      </span>
      <div class="buttons" role="toolbar" aria-label="View">
        <Button name="Whole image" sign="⤢" press={() => stage?.home()} />
        <Button name="Zoom in" sign="+" press={() => stage?.zoomBy(1.5)} />
        <Button name="Zoom out" sign="−" press={() => stage?.zoomBy(1 / 1.5)} />
        <Button name="Turn" sign="⟳" press={() => stage?.turnBy(90)} />
        <Button
          name={palette.value === "safe" ? "Colours of the result" : "Colour-blind-safe colours"}
          sign="◐"
          press={() => (palette.value = palette.value === "safe" ? "result" : "safe")}
          pressed={palette.value === "safe"}
        />
        <Button name={`Theme: ${theme.value}`} sign="☾" press={() => (theme.value = next[theme.value])} />
        <Button name="Save a figure" sign="Figure" press={() => void saveFigure("png")} disabled={!stage || !image.value} />
        <Button name="Save as PDF" sign="PDF" press={() => void saveFigure("pdf")} disabled={!stage || !image.value} />
        {backend.value?.kind === "page" ? <Button name="Copy a link to this view" sign="Link" press={() => void copyLink()} disabled={!image.value} /> : null}
        {modes.value.includes("fullscreen") ? (
          <Button
            name={mode.value === "fullscreen" ? "Back into the chat" : "Whole screen"}
            sign={mode.value === "fullscreen" ? "Chat" : "Whole"}
            press={() => void askMode(mode.value === "fullscreen" ? "inline" : "fullscreen")}
          />
        ) : null}
        <Button name="Keys" sign="?" press={() => setHelp(!help)} pressed={help} />
      </div>
      {help ? (
        <dl class="keys">
          {KEYS.map(([key, what]) => (
            <div key={key}>
              <dt>{key}</dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
      ) : null}
    </header>
  );
}

export function Button(props: { name: string; sign: string; press: () => void; pressed?: boolean; disabled?: boolean }) {
  return (
    <button
      type="button"
      title={props.name}
      aria-label={props.name}
      aria-pressed={props.pressed}
      disabled={props.disabled}
      onClick={props.press}
    >
      <span aria-hidden="true">{props.sign}</span>
    </button>
  );
}
