// A picture as a PDF of one page: an image of it, and nothing else.

const INCH_PT = 72;
/** Points of the page per pixel of the picture: as a screen shows it. */
const PT_PER_PX = INCH_PT / 96;

/** jpeg: of width by height pixels. shownPx: how wide it was on the screen. */
export function pdfOf(jpeg: Uint8Array, width: number, height: number, shownPx: number): Blob {
  const [w, h] = [shownPx * PT_PER_PX, ((shownPx * height) / width) * PT_PER_PX].map((each) => each.toFixed(2));
  const drawn = `q ${w} 0 0 ${h} 0 0 cm /P Do Q`;
  const picture = `/Type /XObject /Subtype /Image /Width ${width} /Height ${height} /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /DCTDecode`;
  const objects: (string | [string, Uint8Array])[] = [
    "<< /Type /Catalog /Pages 2 0 R >>",
    "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 ${w} ${h}] /Contents 4 0 R /Resources << /XObject << /P 5 0 R >> >> >>`,
    [`<< /Length ${drawn.length} >>`, new TextEncoder().encode(drawn)],
    [`<< ${picture} /Length ${jpeg.length} >>`, jpeg],
  ];
  const parts: (string | Uint8Array)[] = [];
  let size = 0;
  const put = (part: string | Uint8Array) => {
    parts.push(part);
    size += part.length;
  };
  put("%PDF-1.4\n");
  const starts = objects.map((object, number) => {
    const start = size;
    put(`${number + 1} 0 obj\n`);
    if (typeof object === "string") put(object);
    else {
      put(`${object[0]}\nstream\n`);
      put(object[1]);
      put("\nendstream");
    }
    put("\nendobj\n");
    return start;
  });
  const table = size;
  put(`xref\n0 ${objects.length + 1}\n0000000000 65535 f \n`);
  for (const start of starts) put(`${String(start).padStart(10, "0")} 00000 n \n`);
  put(`trailer\n<< /Size ${objects.length + 1} /Root 1 0 R >>\nstartxref\n${table}\n%%EOF\n`);
  return new Blob(parts as BlobPart[], { type: "application/pdf" });
}
