// What the server says, as far as the viewer reads it. Names and units are the product's contract.

export type Box = [number, number, number, number];

export interface ImageInfo {
  image_id: string;
  width: number;
  height: number;
  mpp: number | null;
  mpp_source: "file" | "given" | "assumed" | "unknown";
  region: Box;
}

export interface Mask {
  mask_id: string;
  label: string | null;
  free_form: string | null;
  target: string;
  prompt: string;
  evidence: string;
  assertion: string;
  found: boolean;
  presence: number;
  reliability: number | null;
  area_px: number;
  area_um2: number | null;
  area_fraction: number;
  count: number | null;
  bbox: Box | null;
  verdict: string;
  plain: string;
  colour: string;
  resources: { mask: string; instances: string | null; geojson: string; table: string };
  provenance: { model: string; weights_sha256: string; words: string; version: string };
  taught?: { name: string; positive: number; negative: number } | null;
}

export interface NotSegmented {
  label: string | null;
  free_form: string | null;
  evidence: string;
  code: string;
  reason: string;
  nearest: string[];
}

export interface ReadAs {
  sentence: string;
  span: [number, number];
  finding: string;
  assertion: "present" | "absent" | "uncertain" | "historical";
  mask_id: string | null;
}

export interface Warned {
  code: string;
  message: string;
}

export interface SegmentResult {
  result_id: string | null;
  image: ImageInfo;
  masks: Mask[];
  not_segmented: NotSegmented[];
  warnings: Warned[];
  overlay: string | null;
  measures: string[];
  notes: string[];
  job_id: string | null;
  read_as?: ReadAs[];
  parent?: string | null;
}

export interface AboutImage {
  image_id: string;
  width: number;
  height: number;
  mpp: number | null;
  mpp_source: ImageInfo["mpp_source"];
  tile_px: number;
  levels: number;
}

export interface AboutResult {
  result: SegmentResult & { result_id: string };
  tile_px: number;
  levels: number;
  border_px: number;
  outlines_to_level: Record<string, number>;
  image_link?: string;
  /** Why the image cannot be opened. */
  image_problem: string | null;
}

export interface ObjectColumns {
  columns: string[];
  every: number;
  rows: Record<string, (number | null)[]>;
}

export type ObjectRow = Record<string, number | boolean | null>;

export interface ToolAnswer {
  text: string;
  structured: Record<string, unknown>;
  isError: boolean;
}

export interface JobStatus {
  job_id: string;
  state: "queued" | "running" | "done" | "failed" | "cancelled";
  progress: number;
  eta_s: number | null;
  queue_place: number | null;
  result: SegmentResult | null;
  preliminary: { done_share: number; findings: { name: string; statement: string }[]; caveat: string } | null;
  error: { code: string; message: string } | null;
}

export interface ListedResult {
  result_id: string;
  image_id: string;
  created_at: string;
  size_bytes: number;
  masks: string[];
  problem: string | null;
}

export interface Place {
  z: number;
  x: number;
  y: number;
}
