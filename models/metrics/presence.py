"""Whether what was painted looks like the target: the check of BiomedParse, with distributions fitted to one's own images.

Four figures of a mask (mean probability, mean red, green and blue inside it) are each tested against a Beta distribution by a
one-sample Kolmogorov-Smirnov test; the geometric mean of the four p-values is the evidence (pathsegmentor.md, section 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy import stats

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.masks.characteristics import Mask
from tissuetalk.models.reading import MOST_JSON_BYTES, content_of
from tissuetalk.models.segmenter import RGB
from tissuetalk.models.writing import write_whole

LEAST_IMAGES: Final = 5
"""Fewer say nothing about a distribution."""
LEAST_VARIANCE: Final = 1e-5
Figures = tuple[float, float, float, float]
"""Mean probability, red, green and blue inside a mask, each 0..1."""
Beta = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


def figures_of(image: RGB, probability: NDArray[np.float32], mask: Mask) -> Figures | None:
    """Of [H, W, 3], [H, W] and [H, W]; None where nothing is painted."""
    if not mask.any():
        return None
    red, green, blue = (float(value) / 256 for value in image[mask].mean(axis=0))
    return float(probability[mask].mean()), red, green, blue


class PresenceCheck(BaseModel):
    """The distributions of every target of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    weights_sha256: str
    betas: Mapping[str, tuple[Beta, Beta, Beta, Beta]]

    @classmethod
    def fitted(cls, model: str, weights_sha256: str, seen: Mapping[str, Sequence[Figures]]) -> PresenceCheck:
        """By moments, of targets with enough images that show them. Raises InvalidArgumentError where there is none."""
        betas = {name: _betas(some) for name, some in seen.items() if len(some) >= LEAST_IMAGES}
        if not betas:
            raise InvalidArgumentError(
                f"no target has {LEAST_IMAGES} images that show it and a mask on them; fit on a larger manifest."
            )
        return cls(model=model, weights_sha256=weights_sha256, betas=betas)

    @classmethod
    def read(cls, file: Path) -> PresenceCheck:
        """Raises InvalidArgumentError."""
        try:
            return cls.model_validate_json(content_of(file, MOST_JSON_BYTES))
        except (OSError, ValueError, ValidationError) as error:
            raise InvalidArgumentError(
                f"{file} holds no distributions; delete it and let `evaluate --presence` fit it again."
            ) from error

    def write(self, file: Path) -> None:
        write_whole(file, self.model_dump_json(indent=1) + "\n")

    def p_value(self, target: str, figures: Figures) -> float | None:
        """0..1, small where the mask does not look like the target; None for a target that was not fitted."""
        if target not in self.betas:
            return None
        each = [
            float(stats.ks_1samp([value], stats.beta(*beta).cdf).pvalue)
            for value, beta in zip(figures, self.betas[target], strict=True)
        ]
        return float(np.prod(each) ** 0.25)


def _betas(seen: Sequence[Figures]) -> tuple[Beta, Beta, Beta, Beta]:
    columns = np.asarray(seen, np.float64)
    mean = columns.mean(axis=0).clip(0.001, 0.999)
    variance = columns.var(axis=0).clip(LEAST_VARIANCE, 0.99 * mean * (1 - mean))
    size = mean * (1 - mean) / variance - 1
    first, second, third, fourth = zip((mean * size).tolist(), ((1 - mean) * size).tolist(), strict=True)
    return first, second, third, fourth
