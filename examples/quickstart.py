"""The Python API in five cells. Opens as a notebook in VS Code, Jupyter (jupytext) and PyCharm; runs as a script, too."""

# %% A session: which folders images are read from. Results live in a temporary workspace unless one is named.
from pathlib import Path

from tissuetalk.tools import Session

images = Path(__file__).parents[1] / "models" / "samples"
session = Session(images)

# %% Words in, masks out. What was left alone says why.
found = session.segment("colon.jpg", "Crowded adenomatous glands; no invasive carcinoma is seen.", mpp=1.2)
print(found.text)
for refused in found.result.not_segmented:
    print(refused.evidence, "->", refused.code)

# %% A mask is a numpy array, its objects are a DataFrame, its overlay is a picture.
glands = found.masks[0]
print(glands.name, glands.mask.shape, glands.mask.mean().round(3), glands.record.verdict)
print(glands.objects[["id", "area_px", "circularity"]].describe().round(2))
overlay = glands.overlay  # a PIL image: the last line of a cell shows it

# %% Numbers with units and the rule behind each.
numbers = session.measure(found, ["count", "area_fraction", "size"])
for row in numbers.result.measurements:
    print(f"{row.metric}: {row.value:.3g} {row.unit} ({row.rule})")

# %% Evidence: which words led to which mask, and what they mean. Research use only.
print(session.explain(found, "which words led to which mask?").text)

# %% Files other software opens, and the end: without a named workspace nothing stays behind.
saved = found.save(Path("quickstart-result"))
print(session.export(saved, "geojson", Path("quickstart.geojson")))
session.close()
