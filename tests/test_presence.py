"""Is the target there at all: the mean probability of a mask, and the check of its colours against fitted distributions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_evaluation_commands import HEADER, draw
from typer.testing import CliRunner

from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.metrics.presence import PresenceCheck, figures_of
from tissuetalk.models.segmentation.open_vocabulary import OpenVocabulary
from tissuetalk.models.segmentation.pathsegmentor.card import BaseLabels
from tissuetalk.models.segmenter import Context, Decoded, Prompt
from tissuetalk.server.commands.command_line import app


def test_masks_that_look_like_those_of_the_fit_have_large_p_values() -> None:
    random = np.random.default_rng(0)
    seen = [tuple(row) for row in random.beta((18, 8, 4, 8), (2, 8, 12, 4), (200, 4)).tolist()]
    check = PresenceCheck.fitted("m", "0" * 64, {"nuclei": seen, "rare": seen[:2]})
    assert set(check.betas) == {"nuclei"} and check.p_value("rare", seen[0]) is None
    usual, odd = (
        np.mean([check.p_value("nuclei", one) for one in seen]),
        check.p_value("nuclei", (0.51, 0.9, 0.9, 0.1)),
    )
    assert odd is not None and usual > 0.3 > 10 * odd
    # of one value the test's p is twice the smaller tail
    first, second = check.betas["nuclei"][0]
    tails = [stats.beta(*beta).cdf(value) for beta, value in zip(check.betas["nuclei"], seen[0], strict=True)]
    wanted = np.prod([2 * min(tail, 1 - tail) for tail in tails]) ** 0.25
    assert check.p_value("nuclei", seen[0]) == pytest.approx(wanted) and first > second
    with pytest.raises(InvalidArgumentError, match="no target has 5 images"):
        PresenceCheck.fitted("m", "0" * 64, {"rare": seen[:2]})


def test_figures_are_means_inside_the_mask() -> None:
    image, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool)
    image[:2], mask[:2] = (64, 128, 192), True
    assert figures_of(image, np.where(mask, 0.75, 0.1).astype(np.float32), mask) == (0.75, 0.25, 0.5, 0.75)
    assert figures_of(image, np.zeros((4, 4), np.float32), ~mask & mask) is None


def test_a_model_may_answer_with_the_mean_probability_of_what_it_paints(tmp_path: Path) -> None:
    model = OpenVocabulary()
    model.objects = False
    logits = np.full((4, 4), -2.0, np.float32)
    logits[0, 0], logits[0, 1] = 0.0, np.log(9)
    asked = Decoded(logits), Prompt(None, "gland", "gland"), Context({})
    assert model.finish(*asked).presence == pytest.approx(0.9)
    logits[0, 2] = np.log(0.6 / 0.4)
    model.presence_is = "mean probability"
    assert model.finish(*asked).presence == pytest.approx(0.75, abs=1e-6)
    (tmp_path / "config.json").write_text(json.dumps({"presence": "mean probability"}))
    assert BaseLabels.of(tmp_path / "model.safetensors").mean_presence
    for wrong, told in (({"presence": "sure"}, "strongest pixel"), ({"blends": "all"}, "blends is “logits”")):
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(ModelUnavailableError, match=told):
            BaseLabels.of(tmp_path / "model.safetensors")


def test_evaluate_fits_the_check_and_uses_it_afterwards(tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        draw(tmp_path, f"{number}", [(20 + 8 * number, 30), (60, 70 - 6 * number)])
        rows.append(
            f"{number}.png,{number}-mask.png,instance,breast-nuclei-nuclei,{number},breast,0.5,TNBC\n"
        )
    (tmp_path / "manifest.csv").write_text(HEADER + "".join(rows))
    told = [
        "evaluate",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--presence",
        str(tmp_path / "nuclei.json"),
    ]
    for _ in range(2):
        assert CliRunner().invoke(app, told).exit_code == 0
    with (tmp_path / "out" / "presence.csv").open(newline="") as lines:
        found = list(csv.DictReader(lines))
    assert len(found) == 6 and all(0.5 < float(row["mean_probability"]) <= 1 for row in found)
    assert all(0 < float(row["p_value"]) <= 1 for row in found)
    assert "area under the ROC curve" in (tmp_path / "out" / "report.md").read_text()
    (tmp_path / "nuclei.json").write_text("{}")
    done = CliRunner().invoke(app, told)
    assert isinstance(done.exception, InvalidArgumentError) and "holds no distributions" in str(
        done.exception
    )
