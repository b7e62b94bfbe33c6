// Masks over the picture: cover as textured squares, outlines as stretches of one width on the screen.

export type Matrix = [number, number, number, number, number, number];
/** x' = a x + c y + e, y' = b x + d y + f */

const COVER_VERTEX = `#version 300 es
uniform vec4 rect;      // x0, y0, x1, y1 in image pixels
uniform vec4 inside;    // the same corners in the texture
uniform vec3 rowX, rowY; // image pixels, counted from the corner of rect, to the clip space
out vec2 at;
void main() {
  vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
  vec3 p = vec3((rect.zw - rect.xy) * corner, 1.0);
  at = mix(inside.xy, inside.zw, corner);
  gl_Position = vec4(dot(rowX, p), dot(rowY, p), 0.0, 1.0);
}`;

const COVER_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D cover;
uniform vec3 colour;
uniform float fill, outline;
uniform vec2 reach; // one and a half screen pixels, in the texture
in vec2 at;
out vec4 drawn;
void main() {
  float here = texture(cover, at).r;
  float alpha = fill * sqrt(here);
  if (outline > 0.0) {
    float least = here, most = here;
    for (int i = 0; i < 4; i++) {
      vec2 way = i < 2 ? vec2(1.0, 1.0) : vec2(1.0, -1.0);
      float there = texture(cover, at + reach * way * (i % 2 == 0 ? 0.8 : -0.8)).r;
      least = min(least, there);
      most = max(most, there);
    }
    alpha = max(alpha, outline * step(0.5, most) * step(least, 0.499));
  }
  drawn = vec4(colour * alpha, alpha);
}`;

const LINE_VERTEX = `#version 300 es
layout(location = 0) in vec2 from;
layout(location = 1) in vec2 to;
uniform vec3 rowX, rowY; // tile units to screen pixels
uniform vec2 screen;
uniform float width;
uniform bool thin;
out float across;
void main() {
  vec2 a = vec2(dot(rowX, vec3(from, 1.0)), dot(rowY, vec3(from, 1.0)));
  vec2 b = vec2(dot(rowX, vec3(to, 1.0)), dot(rowY, vec3(to, 1.0)));
  vec2 along = b - a;
  float size = max(length(along), 1e-6);
  along /= size;
  int corner = gl_VertexID & 3;
  float side = (corner & 1) == 0 ? -1.0 : 1.0;
  vec2 p = (corner < 2 ? a - along * 0.35 * width : b + along * 0.35 * width)
         + vec2(-along.y, along.x) * side * (width * 0.5 + 0.5);
  across = side * (width * 0.5 + 0.5);
  if (thin) {
    p = corner < 2 ? a : b;
    across = 0.0;
  }
  gl_Position = vec4(p / screen * vec2(2.0, -2.0) + vec2(-1.0, 1.0), 0.0, 1.0);
}`;

const LINE_FRAGMENT = `#version 300 es
precision highp float;
uniform vec4 colour;
uniform float width;
in float across;
out vec4 drawn;
void main() {
  float alpha = colour.a * clamp(width * 0.5 + 0.5 - abs(across), 0.0, 1.0);
  drawn = vec4(colour.rgb * alpha, alpha);
}`;

/** Stretches of outline in a tile that are drawn in their full width anywhere. */
const FEW = 1500;

export interface CoverTexture {
  texture: WebGLTexture;
  size: number;
}

export interface LineBuffer {
  array: WebGLVertexArrayObject;
  buffer: WebGLBuffer;
  count: number;
  thick: boolean;
}

export class Painter {
  private readonly gl: WebGL2RenderingContext;
  private readonly cover: WebGLProgram;
  private readonly line: WebGLProgram;
  /** Without a graphics card, where many stretches of outline are plain lines: two triangles take five times as long. */
  readonly soft: boolean;
  /** Stretches of outline that are drawn at most at a time; with more of them their cover says more. */
  readonly mostSegments: number;
  private readonly triangles: WebGLBuffer;
  private readonly pairs: WebGLBuffer;
  private longest = 0;
  /** Since begin(). */
  painted = false;
  private fence: WebGLSync | null = null;
  private readonly places = new Map<string, WebGLUniformLocation | null>();

  /** Throws where the browser has no WebGL 2. */
  constructor(readonly canvas: HTMLCanvasElement) {
    const gl = canvas.getContext("webgl2", { alpha: true, antialias: false, depth: false, preserveDrawingBuffer: false });
    if (!gl) throw new Error("this browser has no WebGL 2");
    this.gl = gl;
    this.cover = this.program(COVER_VERTEX, COVER_FRAGMENT);
    this.line = this.program(LINE_VERTEX, LINE_FRAGMENT);
    const said = gl.getExtension("WEBGL_debug_renderer_info");
    const renderer = said ? String(gl.getParameter(said.UNMASKED_RENDERER_WEBGL)) : "";
    this.soft = /swiftshader|llvmpipe|software|basic render/i.test(renderer);
    this.mostSegments = this.soft ? 25_000 : 400_000;
    this.triangles = gl.createBuffer()!;
    this.pairs = gl.createBuffer()!;
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  /** Whether the last frame is still being drawn: another one would only wait behind it. */
  get busy(): boolean {
    if (!this.fence) return false;
    const gl = this.gl;
    if (gl.getSyncParameter(this.fence, gl.SYNC_STATUS) !== gl.SIGNALED && !gl.isContextLost()) return true;
    gl.deleteSync(this.fence);
    this.fence = null;
    return false;
  }

  end(): void {
    if (this.fence) this.gl.deleteSync(this.fence);
    this.fence = this.gl.fenceSync(this.gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    this.gl.flush();
  }

  begin(width: number, height: number): void {
    this.painted = false;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.gl.viewport(0, 0, width, height);
    this.gl.clearColor(0, 0, 0, 0);
    this.gl.clear(this.gl.COLOR_BUFFER_BIT);
  }

  textureOf(picture: ImageBitmap): CoverTexture {
    const gl = this.gl;
    const texture = gl.createTexture()!;
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8, gl.RED, gl.UNSIGNED_BYTE, picture);
    for (const wrap of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, wrap, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    return { texture, size: picture.width };
  }

  /** Four corners for each stretch: instances would be less memory, but without a graphics card each is drawn on its own. */
  linesOf(segments: Int16Array): LineBuffer {
    const gl = this.gl;
    const count = segments.length / 4;
    const two = new Int32Array(segments.buffer, segments.byteOffset, 2 * count);
    const corners = new Int32Array(8 * count);
    for (let at = 0; at < count; at++) {
      for (let corner = 0; corner < 4; corner++) {
        corners[8 * at + 2 * corner] = two[2 * at]!;
        corners[8 * at + 2 * corner + 1] = two[2 * at + 1]!;
      }
    }
    const array = gl.createVertexArray()!;
    const buffer = gl.createBuffer()!;
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, corners, gl.STATIC_DRAW);
    for (const place of [0, 1]) {
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 2, gl.SHORT, false, 8, 4 * place);
    }
    const thick = !this.soft || count < FEW;
    this.makeLists(count);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, thick ? this.triangles : this.pairs);
    gl.bindVertexArray(null);
    return { array, buffer, count, thick };
  }

  /** Lists of corners, as long as the longest needs them, for all. */
  private makeLists(count: number): void {
    const gl = this.gl;
    if (count <= this.longest) return;
    this.longest = Math.max(4096, 2 * count);
    for (const [buffer, corners] of [
      [this.triangles, [0, 1, 2, 2, 1, 3]],
      [this.pairs, [0, 2]],
    ] as const) {
      const list = new Uint32Array(corners.length * this.longest);
      for (let at = 0; at < this.longest; at++) list.set(corners.map((corner) => 4 * at + corner), corners.length * at);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, list, gl.STATIC_DRAW);
    }
  }

  dropTexture(cover: CoverTexture): void {
    this.gl.deleteTexture(cover.texture);
  }

  dropLines(lines: LineBuffer): void {
    this.gl.deleteVertexArray(lines.array);
    this.gl.deleteBuffer(lines.buffer);
  }

  /** inside: the part of the texture that lies over rect. toScreen: from image pixels. perPixel: texture pixels per screen pixel. */
  drawCover(
    cover: CoverTexture,
    rect: [number, number, number, number],
    inside: [number, number, number, number],
    toScreen: Matrix,
    colour: [number, number, number],
    look: { fill: number; outline: number },
    perPixel: number,
  ): void {
    const gl = this.gl;
    this.painted = true;
    gl.useProgram(this.cover);
    gl.bindTexture(gl.TEXTURE_2D, cover.texture);
    const [a, b, c, d, e, f] = moved(toScreen, rect[0], rect[1]);
    const [w, h] = [this.canvas.width, this.canvas.height];
    gl.uniform3f(this.at(this.cover, "rowX"), (a / w) * 2, (c / w) * 2, (e / w) * 2 - 1);
    gl.uniform3f(this.at(this.cover, "rowY"), (-b / h) * 2, (-d / h) * 2, 1 - (f / h) * 2);
    gl.uniform4f(this.at(this.cover, "rect"), 0, 0, rect[2] - rect[0], rect[3] - rect[1]);
    gl.uniform4f(this.at(this.cover, "inside"), ...inside);
    gl.uniform3f(this.at(this.cover, "colour"), ...colour);
    gl.uniform1f(this.at(this.cover, "fill"), look.fill);
    gl.uniform1f(this.at(this.cover, "outline"), look.outline);
    const reach = (1.5 * perPixel) / cover.size;
    gl.uniform2f(this.at(this.cover, "reach"), reach, reach);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  drawLines(lines: LineBuffer, toScreen: Matrix, colour: [number, number, number], width: number, alpha = 1): void {
    const gl = this.gl;
    this.painted = true;
    gl.useProgram(this.line);
    gl.bindVertexArray(lines.array);
    const [a, b, c, d, e, f] = toScreen;
    gl.uniform3f(this.at(this.line, "rowX"), a, c, e);
    gl.uniform3f(this.at(this.line, "rowY"), b, d, f);
    gl.uniform2f(this.at(this.line, "screen"), this.canvas.width, this.canvas.height);
    gl.uniform4f(this.at(this.line, "colour"), ...colour, alpha);
    gl.uniform1f(this.at(this.line, "width"), width);
    gl.uniform1i(this.at(this.line, "thin"), lines.thick ? 0 : 1);
    if (lines.thick) gl.drawElements(gl.TRIANGLES, 6 * lines.count, gl.UNSIGNED_INT, 0);
    else gl.drawElements(gl.LINES, 2 * lines.count, gl.UNSIGNED_INT, 0);
    gl.bindVertexArray(null);
  }

  /** Only what lies in this part of the screen is drawn until it is called without one. */
  clip(left?: number, right = 0): void {
    const gl = this.gl;
    if (left === undefined) {
      gl.disable(gl.SCISSOR_TEST);
    } else {
      gl.enable(gl.SCISSOR_TEST);
      gl.scissor(left, 0, Math.max(0, right - left), this.canvas.height);
    }
  }

  private at(program: WebGLProgram, name: string): WebGLUniformLocation | null {
    const key = `${program === this.cover ? "c" : "l"}.${name}`;
    if (!this.places.has(key)) this.places.set(key, this.gl.getUniformLocation(program, name));
    return this.places.get(key)!;
  }

  private program(vertex: string, fragment: string): WebGLProgram {
    const gl = this.gl;
    const program = gl.createProgram()!;
    for (const [kind, text] of [
      [gl.VERTEX_SHADER, vertex],
      [gl.FRAGMENT_SHADER, fragment],
    ] as const) {
      const shader = gl.createShader(kind)!;
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? "no program");
    return program;
  }
}

/** The same for coordinates that are counted from (x, y). */
export function moved([a, b, c, d, e, f]: Matrix, x: number, y: number): Matrix {
  return [a, b, c, d, a * x + c * y + e, b * x + d * y + f];
}

export function scaled([a, b, c, d, e, f]: Matrix, by: number): Matrix {
  return [a * by, b * by, c * by, d * by, e, f];
}

/** What brings a place that was drawn by one matrix to where another one has it. */
export function between(drawn: Matrix, now: Matrix): Matrix {
  const [a, b, c, d, e, f] = drawn;
  const determinant = a * d - b * c;
  const [ia, ib, ic, id] = [d / determinant, -b / determinant, -c / determinant, a / determinant];
  const [na, nb, nc, nd] = now;
  const turn = [na * ia + nc * ib, nb * ia + nd * ib, na * ic + nc * id, nb * ic + nd * id] as const;
  return [...turn, now[4] - turn[0] * e - turn[2] * f, now[5] - turn[1] * e - turn[3] * f];
}

export function applied([a, b, c, d, e, f]: Matrix, x: number, y: number): [number, number] {
  return [a * x + c * y + e, b * x + d * y + f];
}

export function rgb(colour: string): [number, number, number] {
  const number = parseInt(colour.slice(1), 16);
  return [(number >> 16) / 255, ((number >> 8) & 255) / 255, (number & 255) / 255];
}
