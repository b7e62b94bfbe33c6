"""Tiny files in the layout of each of the 17 PathSeg sources, drawn on the fly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

SIDE = 64


def image(path: Path, side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = np.linspace(120, 240, side, dtype=np.uint8)
    pixels = np.stack([np.broadcast_to(shade, (side, side))] * 3, axis=-1)
    cv2.imwrite(str(path), pixels)


def mask(path: Path, values: NDArray[Any] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), two(1, 2) if values is None else values)


def two(first: int, second: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Two squares with the given numbers."""
    plane = np.zeros((side, side), np.uint8)
    plane[4:20, 4:20], plane[30:50, 30:50] = first, second
    return plane


def bcss(root: Path) -> None:
    name = "TCGA-A1-A0SK-DX1_xmin1_ymin2_MPP-0.2500.png"
    image(root / "images" / name)
    mask(root / "masks" / name, two(1, 7))


def cocahis(root: Path) -> None:
    import h5py

    with h5py.File(root / "CoCaHis.hdf5", "w") as file:
        he = file.create_group("HE")
        he["raw"] = np.full((2, SIDE, SIDE, 3), 200, np.uint8)
        file.create_group("GT")["GT_majority_vote"] = np.stack([two(1, 1), two(1, 1)])
        he.attrs["train_test_split"], he.attrs["patient_num"] = ["train", "test"], ["1", "2"]


def conic(root: Path) -> None:
    np.save(root / "images.npy", np.full((2, SIDE, SIDE, 3), 200, np.uint8))
    labels = np.stack([two(5, 9), two(2, 3)], axis=-1).astype(np.uint16)
    np.save(root / "labels.npy", np.stack([labels, labels]))
    (root / "patch_info.csv").write_text("patch_info\nconsep_1-0000\nconsep_1-0001\n")


def crag(root: Path) -> None:
    for part in ("train", "valid"):
        image(root / part / "Images" / f"{part}_1.png")
        mask(root / part / "Annotation" / f"{part}_1.png")


def digestpath(root: Path) -> None:
    folder = root / "tissue-train-pos-v1"
    image(folder / "D2019_1.jpg")
    mask(folder / "D2019_1_mask.jpg", two(255, 255))


def glas(root: Path) -> None:
    for name in ("train_1", "testA_1", "testB_1"):
        image(root / f"{name}.bmp")
        mask(root / f"{name}_anno.bmp")


def janowczyk(root: Path) -> None:
    image(root / "8863_500_f00003_original.tif")
    mask(root / "8863_500_f00003_mask.png", two(255, 255))


def midog(root: Path) -> None:
    image(root / "images" / "001.tiff")
    boxes = [(1, [10, 10, 20, 20]), (2, [30, 30, 40, 40])]
    listed = {
        "images": [{"id": 1, "file_name": "001.tiff"}, {"id": 2, "file_name": "002.tiff"}],
        "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
        "annotations": [{"image_id": 1, "category_id": kind, "bbox": box} for kind, box in boxes],
    }
    (root / "MIDOG.json").write_text(json.dumps(listed))


def monusac(root: Path) -> None:
    xml = (
        '<Annotations><Annotation Id="1"><Attributes><Attribute Name="{}"/></Attributes><Regions><Region><Vertices>'
        '<Vertex X="4" Y="4"/><Vertex X="20" Y="4"/><Vertex X="20" Y="20"/><Vertex X="4" Y="20"/>'
        "</Vertices></Region></Regions></Annotation></Annotations>"
    )
    for folder, kind in (("train", "Epithelial"), ("MoNuSAC Testing Data and Annotations", "Macrophage")):
        place = root / folder / "TCGA-5P-A9K0-01Z"
        image(place / "TCGA-5P-A9K0-01Z_1.tif")
        (place / "TCGA-5P-A9K0-01Z_1.xml").write_text(xml.format(kind))


def nucls(root: Path) -> None:
    name = "TCGA-A1-A0SK-DX1_id-1_left-2"
    image(root / "rgb" / f"{name}.png")
    (root / "csv").mkdir()
    (root / "csv" / f"{name}.csv").write_text(
        "raw_classification,type,xmin,ymin,xmax,ymax,coords_x,coords_y\n"
        'tumor,polyline,4,4,20,20,"4,20,20,4","4,4,20,20"\n'
        "plasma_cell,rectangle,30,30,50,50,,\n"
        "unlabeled,rectangle,0,0,3,3,,\n"
    )


def pannuke(root: Path) -> None:
    images, masks = root / "Fold 1" / "images" / "fold1", root / "Fold 1" / "masks" / "fold1"
    for folder in (images, masks):
        folder.mkdir(parents=True)
    np.save(images / "images.npy", np.full((2, SIDE, SIDE, 3), 200.0))
    np.save(images / "types.npy", np.array(["Bile-duct", "Adrenal_gland"]))
    planes = np.zeros((2, SIDE, SIDE, 6))
    planes[:, 4:20, 4:20, 0], planes[:, 30:50, 30:50, 4] = 3, 8
    np.save(masks / "masks.npy", planes)


def rings(root: Path) -> None:
    for part in ("TRAIN", "TEST"):
        image(root / part / "IMAGES" / "P1_1.png", 100)
        mask(root / part / "MANUAL GLANDS" / "P1_1.png", np.full((100, 100), 255, np.uint8))
    mask(root / "TRAIN" / "MANUAL TUMOR" / "P1_1.png", np.full((100, 100), 255, np.uint8))


def segpath(root: Path) -> None:
    for stain in ("panCK_Epithelium", "CD235a_RBC"):
        for number in range(2):
            image(root / stain / f"{stain}_00{number}_HE.png")
            mask(root / stain / f"{stain}_00{number}_mask.png", two(1, 1))
        rows = "".join(f"{stain}_00{n}_HE.png,{part}\n" for n, part in enumerate(("val", "test")))
        (root / stain / f"{stain}_fileinfo.csv").write_text("filename,train_val_test\n" + rows)


def sicap(root: Path) -> None:
    image(root / "images" / "16B0001851_Block_Region_1_0_0.jpg")
    mask(root / "masks" / "16B0001851_Block_Region_1_0_0.png", two(2, 4))


def tnbc(root: Path) -> None:
    image(root / "Slide_01" / "01_1.png")
    mask(root / "GT_01" / "01_1.png", two(3, 4))
    (root / "classes.csv").write_text("number,label\n3,breast-cell-adipocyte\n4,breast-cell-cancerous\n")


def wsss(root: Path) -> None:
    image(root / "2.validation" / "img" / "0.png")
    indices = Image.frombytes("P", (SIDE, SIDE), two(1, 3).tobytes())
    indices.putpalette([0, 64, 128, 64, 128, 0, 243, 152, 0, 255, 255, 255])
    path = root / "2.validation" / "mask" / "0.png"
    path.parent.mkdir(parents=True)
    indices.save(path)


def consep(root: Path) -> None:
    for part in ("Train", "Test"):
        image(root / part / "Images" / "image_1.png")
        (root / part / "Labels").mkdir(parents=True)
        kinds = two(3, 4)
        savemat(root / part / "Labels" / "image_1.mat", {"inst_map": two(1, 2), "type_map": kinds})


MAKERS: dict[str, Callable[[Path], None]] = {
    "BCSS": bcss, "CoCaHis": cocahis, "CoNIC2022": conic, "CRAG": crag, "DigestPath2019": digestpath, "GlaS": glas,
    "Janowczyk": janowczyk, "MIDOG": midog, "MoNuSAC": monusac, "NuCLS": nucls, "PanNuke": pannuke, "RINGS": rings,
    "SegPath": segpath, "SICAPv2": sicap, "TNBC": tnbc, "WSSS4LUAD": wsss, "CoNSeP": consep,
}  # fmt: skip
