// Numbers of a mask's objects as a plot; what is brushed in it is marked in the picture.

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { label, unit } from "./panel";
import { about, activeMask, backend, chosen, colourOf, foundMasks, nameOf, palette } from "./state";
import type { Mask, ObjectColumns } from "./types";

const across = signal("");
const up = signal("");
const BINS = 40;

export function Plots() {
  const withObjects = foundMasks.value.filter((mask) => mask.count);
  const mask = withObjects.find((each) => each.mask_id === activeMask.value) ?? withObjects[0];
  const [open, setOpen] = useState(false);
  if (!mask) return null;
  return (
    <details class="plots" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Plot the objects of {nameOf(mask)}</summary>
      {open ? <Plot key={mask.mask_id} mask={mask} /> : null}
    </details>
  );
}

const data = signal<{ maskId: string; found: ObjectColumns } | null>(null);
const failed = signal("");

async function load(mask: Mask, columns: string[]): Promise<void> {
  try {
    failed.value = "";
    const found = await backend.value!.objects(about.value!.result.result_id, mask.mask_id, columns);
    data.value = { maskId: mask.mask_id, found };
  } catch (error) {
    failed.value = (error as Error).message;
  }
}

function Plot({ mask }: { mask: Mask }) {
  const here = useRef<HTMLDivElement>(null);
  const columns = data.value?.maskId === mask.mask_id ? data.value.found.columns : [];
  const shown = columns.filter((name) => !/^(id|bbox_|touches)/.test(name));
  const scaled = (stem: string) => (columns.includes(`${stem}_um2`) ? `${stem}_um2` : `${stem}_px`);
  const x = columns.includes(across.value) ? across.value : columns.length ? scaled("area") : "";
  const y = columns.includes(up.value) ? up.value : "";
  useEffect(() => void load(mask, [x || "area_px", y].filter(Boolean)), [mask.mask_id, x, y]);
  const rows = data.value?.maskId === mask.mask_id ? data.value.found.rows : null;
  useEffect(() => {
    if (!here.current || !rows || !x || !rows[x]) return;
    const plot = y && rows[y] ? scatter(here.current, mask, rows, x, y) : histogram(here.current, mask, rows, x);
    return () => plot.destroy();
  }, [rows, x, y, palette.value]);
  const select = (chosenName: typeof across, value: string, name: string, more: string) => (
    <label>
      {name}
      <select value={value} aria-label={name} onChange={(event) => (chosenName.value = event.currentTarget.value)}>
        {more ? <option value="">{more}</option> : null}
        {shown.map((each) => (
          <option key={each} value={each}>
            {label(each)} {unit(each)}
          </option>
        ))}
      </select>
    </label>
  );
  const many = chosen.value?.maskId === mask.mask_id ? chosen.value.ids.size : 0;
  return (
    <>
      <div class="line">
        {select(across, x, "Across", "")}
        {select(up, y, "Up", "how many")}
      </div>
      <div ref={here} class="plot" />
      {failed.value ? <p class="wrong">{failed.value}</p> : null}
      <p class="hint" aria-live="polite">
        {many ? `${many} objects marked. ` : "Drag over the plot to mark objects in the picture. "}
        {data.value && data.value.found.every > 1 ? `Every ${data.value.found.every}th object is shown.` : ""}
        {many ? (
          <button type="button" onClick={() => (chosen.value = null)}>
            None
          </button>
        ) : null}
      </p>
    </>
  );
}

type Rows = ObjectColumns["rows"];

function mark(mask: Mask, rows: Rows, keep: (row: number) => boolean): void {
  const ids = rows.id!.filter((_, row) => keep(row)) as number[];
  chosen.value = ids.length ? { maskId: mask.mask_id, ids: new Set(ids) } : null;
}

function options(element: HTMLElement, x: string, y: string, select: (plot: uPlot) => void, both: boolean): uPlot.Options {
  const ink = getComputedStyle(element).color;
  const grid = getComputedStyle(element).borderColor;
  const axis = (text: string): uPlot.Axis => ({ label: text, stroke: ink, grid: { stroke: grid, width: 0.5 }, ticks: { stroke: grid }, labelSize: 20, size: 44 });
  const named = (name: string) => (name === "objects" ? name : `${label(name)} ${unit(name)}`.trim());
  return {
    width: element.clientWidth || 300,
    height: 210,
    legend: { show: false },
    scales: { x: { time: false } },
    axes: [axis(named(x)), axis(named(y))],
    cursor: { drag: { x: true, y: both, setScale: false, uni: 1 } },
    series: [{}],
    hooks: { setSelect: [select] },
  };
}

function histogram(element: HTMLElement, mask: Mask, rows: Rows, x: string): uPlot {
  const values = rows[x]!;
  const numbers = values.filter((value): value is number => value !== null);
  const [least, most] = [numbers.reduce((a, b) => Math.min(a, b), Infinity), numbers.reduce((a, b) => Math.max(a, b), -Infinity)];
  const width = (most - least || 1) / BINS;
  const counts = new Array<number>(BINS).fill(0);
  for (const value of numbers) counts[Math.min(BINS - 1, Math.floor((value - least) / width))]!++;
  const middles = counts.map((_, bin) => least + (bin + 0.5) * width);
  const chosenRange = (plot: uPlot) => {
    if (plot.select.width < 2) return;
    const [from, to] = [plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")];
    mark(mask, rows, (row) => values[row] !== null && values[row]! >= from && values[row]! <= to);
  };
  const drawn = options(element, x, "objects", chosenRange, false);
  const colour = colourOf(mask);
  drawn.series = [{}, { fill: colour, stroke: "#55505f", width: 1, points: { show: false }, paths: uPlot.paths.bars!({ size: [1, 100] }) }];
  drawn.scales!.y = { range: (_, __, top) => [0, top * 1.05] };
  return new uPlot(drawn, [middles, counts], element);
}

function scatter(element: HTMLElement, mask: Mask, rows: Rows, x: string, y: string): uPlot {
  const order = rows[x]!.map((_, row) => row).filter((row) => rows[x]![row] !== null && rows[y]![row] !== null);
  order.sort((one, other) => rows[x]![one]! - rows[x]![other]!);
  const xs = order.map((row) => rows[x]![row]!);
  const ys = order.map((row) => rows[y]![row]!);
  const chosenBox = (plot: uPlot) => {
    const { left, top, width, height } = plot.select;
    if (width < 2 || height < 2) return;
    const [x0, x1] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    const [y1, y0] = [plot.posToVal(top, "y"), plot.posToVal(top + height, "y")];
    mark(mask, rows, (row) => {
      const [a, b] = [rows[x]![row], rows[y]![row]];
      return a != null && b != null && a >= x0 && a <= x1 && b >= y0 && b <= y1;
    });
  };
  const drawn = options(element, x, y, chosenBox, true);
  const points = { show: true, size: 4, fill: colourOf(mask), stroke: "#55505f", width: 0.5 };
  drawn.series = [{}, { paths: () => null, points }];
  return new uPlot(drawn, [xs, ys], element);
}
