import { useState } from "preact/hooks";
import { KEYS, stageRef } from "./controls";
import { about, backend, image, palette, theme, type Theme } from "./state";

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
