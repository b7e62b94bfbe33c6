"""What the classical baseline may be used for. No heavy import: the registry lists it at start-up."""

from tissuetalk.models.segmenter import ModelCard

CARD = ModelCard(
    name="classical-nuclei",
    summary="All nuclei from the optical density in red light: threshold, then distance-based splitting. No learning.",
    licence="Apache-2.0",
    research_only=True,
    targets=("nuclei",),
    mpp=(0.5,),
    prompts="fixed",
    source="Otsu and Li thresholds (their mean), watershed on the distance map",
    metrics={},
    limits="Baseline only. Merges pale nuclei with eosin-rich cytoplasm, counts pigment and ink, knows no cell types.",
)
