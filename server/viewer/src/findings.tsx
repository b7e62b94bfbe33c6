// The words beside the picture: every finding in the colour of its mask, both ways.

import { flyTo } from "./panel";
import { about, activeMask, colourOf, masks, nameOf, words } from "./state";
import type { Mask, ReadAs } from "./types";

interface Piece {
  text: string;
  line: ReadAs | null;
}

export function Findings() {
  const result = about.value!.result;
  const lines = result.read_as ?? [];
  const text = words.value;
  if (text) {
    return (
      <section>
        <h2>Words</h2>
        <p class="words">{piecesOf(text, lines.length ? lines : fromMasks(text)).map(show)}</p>
      </section>
    );
  }
  if (!lines.length) return null;
  return (
    <section>
      <h2>Findings in the words</h2>
      <ul class="findings">
        {lines.map((line) => (
          <li key={`${line.span[0]}-${line.finding}`}>
            <Finding line={line}>{line.finding}</Finding> <span class="assertion">{line.assertion}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function show(piece: Piece, number: number) {
  return piece.line ? (
    <Finding key={number} line={piece.line}>
      {piece.text}
    </Finding>
  ) : (
    <span key={number}>{piece.text}</span>
  );
}

function Finding({ line, children }: { line: ReadAs; children: preact.ComponentChildren }) {
  const mask = masks.value.find((each) => each.mask_id === line.mask_id);
  const kind = line.assertion === "absent" || line.assertion === "historical" ? line.assertion : (mask?.found ?? false) ? "there" : "unknown";
  const says: Record<string, string> = {
    there: mask ? `shown as ${nameOf(mask)}` : "",
    absent: "said to be absent: not looked for",
    historical: "of an earlier time: not looked for",
    unknown: mask ? "looked for, not found" : "not looked for",
  };
  return (
    <button
      type="button"
      class={`finding ${kind} ${mask && activeMask.value === mask.mask_id ? "active" : ""}`}
      ref={(element) => element?.style.setProperty("--mask", mask?.found ? colourOf(mask) : "transparent")}
      title={`${line.finding}: ${says[kind]}${line.assertion === "uncertain" ? " (uncertain)" : ""}`}
      onClick={() => mask && flyTo(mask)}
    >
      {children}
    </button>
  );
}

/** The text cut at the findings; of overlapping ones the first counts. */
export function piecesOf(text: string, lines: ReadAs[]): Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  // the server counts characters, JavaScript half of some of them
  const characters = Array.from(text);
  const part = (from: number, to: number) => characters.slice(from, to).join("");
  const places = lines.map((line) => ({ line, span: narrowed(characters, line) }));
  for (const { line, span } of places.sort((one, other) => one.span[0] - other.span[0])) {
    const [start, stop] = span;
    if (start < at || stop > characters.length || stop <= start) continue;
    if (start > at) pieces.push({ text: part(at, start), line: null });
    pieces.push({ text: part(start, stop), line });
    at = stop;
  }
  if (at < characters.length) pieces.push({ text: part(at, characters.length), line: null });
  return pieces;
}

/** A span is a whole sentence: where in it the finding's own words stand, if they do. */
function narrowed(characters: string[], line: ReadAs): [number, number] {
  const [start, stop] = line.span;
  const sentence = characters.slice(start, stop).map((each) => (each.toLowerCase().length === 1 ? each.toLowerCase() : each));
  const mask = masks.value.find((each) => each.mask_id === line.mask_id);
  for (const named of [line.finding, mask?.evidence ?? "", mask ? nameOf(mask) : ""]) {
    const sought = Array.from(named.toLowerCase());
    if (!sought.length || sought.length > sentence.length) continue;
    for (let from = 0; from + sought.length <= sentence.length; from++) {
      if (sought.every((each, number) => sentence[from + number] === each)) return [start + from, start + from + sought.length];
    }
  }
  return [start, stop];
}

/** Of a request, which is not read sentence by sentence: where each mask's own words stand in it. */
function fromMasks(text: string): ReadAs[] {
  const lower = text.toLowerCase();
  return masks.value
    .filter((mask: Mask) => mask.evidence && lower.includes(mask.evidence.toLowerCase()))
    .map((mask) => {
      const start = Array.from(text.slice(0, lower.indexOf(mask.evidence.toLowerCase()))).length;
      const stop = start + Array.from(mask.evidence).length;
      const assertion = mask.assertion as ReadAs["assertion"];
      return { sentence: mask.evidence, span: [start, stop], finding: nameOf(mask), assertion, mask_id: mask.mask_id };
    });
}
