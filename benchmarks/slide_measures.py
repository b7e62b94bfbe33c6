"""Time and peak memory of measures and exports of one drawn slide result: 40,000 x 40,000 px, a tenth of it tissue.

    python benchmarks/slide_measures.py [OBJECTS]

Every line is a process of its own, so that its peak is its own. Objects are discs on a lattice in a square of tissue;
where pixels are asked for, those of a small picture are read.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import shapely
import zarr

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from drawn import stored

from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.tools.export import FORMATS, export
from tissuetalk.tools.measure import measure
from tissuetalk.tools.segment.objects import schema
from tissuetalk.tools.storage.result_folder import ResultFolder

SIDE, MPP, STEP = 40_000, 0.25, 2
TISSUE = 12_600
METRICS = (
    "size",
    "shape",
    "intensity",
    "distance",
    "tissue",
    "hotspot",
    "density_in",
    "distance_to",
    "heatmap",
    "histogram",
)


def draw(folder: Path, count: int) -> None:
    """A result of nuclei and a tumour that covers half of the tissue."""
    small = np.zeros((64, 64), np.int32)
    small[:8, :8] = 1
    result = stored(folder, {"nuclei": (small > 0, small), "tumour": (small > 0, None)}, mpp=MPP)
    found = result.result()
    image = found.image.model_copy(update={"width": SIDE, "height": SIDE, "region": [0, 0, SIDE, SIDE]})
    origin = found.masks[0].provenance.model_copy(update={"region": [0, 0, SIDE, SIDE]})
    masks = [mask.model_copy(update={"area_px": count * 314, "provenance": origin}) for mask in found.masks]
    result.write_result(found.model_copy(update={"image": image, "masks": masks}))
    result.write_request({"image": "gone.svs"})
    slide = folder / "slide"
    (slide / "objects").mkdir(parents=True)
    (slide / "slide.json").write_text(json.dumps({"version": 1}))
    tissue = np.zeros((2000, 2000), np.uint8)
    tissue[: TISSUE // 20, : TISSUE // 20] = 255
    cv2.imwrite(str(slide / "tissue.png"), tissue)
    nuclei, tumour = (mask.mask_id for mask in masks)
    _labels(slide / "labels" / f"{nuclei}.ome.zarr", count, objects=True)
    _labels(slide / "labels" / f"{tumour}.ome.zarr", count, objects=False)
    _rows(slide / "objects" / f"{nuclei}.parquet", count)


def _centres(count: int) -> np.ndarray:
    across = int(np.ceil(np.sqrt(count)))
    number = np.arange(count)
    return (np.stack([number % across, number // across], axis=1) + 0.5) * (TISSUE / across)


def _labels(path: Path, count: int, *, objects: bool) -> None:
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    side, datasets = SIDE // STEP, []
    for level in range(7):
        step, size = STEP * 2**level, -(-side // 2**level)
        array = group.create_array(
            str(level),
            shape=(size, size),
            chunks=(1024, 1024),
            dtype="int32" if objects else "uint8",
            fill_value=0,
        )
        inner = TISSUE // step
        if objects:
            across = int(np.ceil(np.sqrt(count)))
            cell = ((np.arange(inner) + 0.5) * step / (TISSUE / across)).astype(int)
            off = (np.arange(inner) + 0.5) * step % (TISSUE / across) - TISSUE / across / 2
            for top in range(0, inner, 1024):
                rows = slice(top, min(inner, top + 1024))
                labels = cell[rows, None] * across + cell[None, :] + 1
                array[rows, :inner] = np.where(off[rows, None] ** 2 + off[None, :] ** 2 <= 16, labels, 0)
        else:
            array[: inner // 2, :inner] = 1
        scale = [step * MPP] * 2
        middle = [(step - 1) / 2 * MPP] * 2
        transforms = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": middle}]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}


def _rows(path: Path, count: int) -> None:
    centres, names = _centres(count), schema(0.5)
    with pyarrow.parquet.ParquetWriter(path, names, compression="zstd") as writer:
        for start in range(0, count, 50_000):
            at = centres[start : start + 50_000]
            n = len(at)
            shapes = shapely.buffer(shapely.points(at), 4.0, quad_segs=8)
            columns = {field.name: np.full(n, 8.0) for field in names}
            columns |= {f"bbox_{edge}": np.full(n, 8) for edge in ("x0", "y0", "x1", "y1")}
            columns |= {"centroid_x": at[:, 0], "centroid_y": at[:, 1], "touches_border": np.zeros(n, bool)}
            columns |= {"object_id": np.arange(start, start + n) + 1, "area_px": np.full(n, 50.0)}
            columns |= {"block": ["0.5:0_0"] * n, "geometry": shapely.to_wkb(shapes).tolist()}
            arrays = [pyarrow.array(columns[field.name], field.type) for field in names]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=names))


def one(folder: Path, what: str) -> dict[str, float]:
    """Seconds and peak resident memory of one metric or format."""

    def picture() -> ImageSource:
        return open_image(Path(__file__).parents[1] / "models" / "samples" / "colon.jpg", name="colon.jpg")

    start, opened = time.perf_counter(), ResultFolder(folder)
    if what in FORMATS:
        export(opened, what, folder.parent / f"{what}.out", picture)
    else:
        measure.measure_folder(opened, metrics=[what], mask_ids=None, open_image=picture)
    return {"s": round(time.perf_counter() - start, 1), "peak MB": round(peak_mb())}


def peak_mb() -> float:
    """Of this program alone: getrusage would begin with what the parent held."""
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1024


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(one(Path(sys.argv[1]), sys.argv[2])))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "result"
        draw(folder, count)
        for what in (*METRICS, *FORMATS):
            done = subprocess.run(
                [sys.executable, __file__, str(folder), what], check=False, capture_output=True, text=True
            )
            print(what, done.stdout.strip() or done.stderr.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
