"""Maps of where a slide classifier's logit comes from, by patch, by token and by object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.planted_objects import pointing_hit, token_map
from tissuetalk.models.classifiers.activation_maps import (
    Overlap,
    paint_objects,
    patch_map,
)
from tissuetalk.models.classifiers.networks import AttentionMIL, MilConfig
from tissuetalk.models.errors import InvalidArgumentError


def standard_model(pre_fc: int = 0) -> AttentionMIL:
    torch.manual_seed(3)
    return AttentionMIL(MilConfig(width=6, classes=2, hidden=8, pre_fc=pre_fc)).eval()


def left_half(side: int = 4) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), bool)
    mask[:, : side // 2] = True
    return mask


def corner(side: int = 4) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), bool)
    mask[0, 0] = True
    return mask


def test_shares_of_patches_add_up_to_the_logit() -> None:
    vectors = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    for number in (0, 1):
        found = patch_map(standard_model(), vectors, number)
        assert found.values.sum() + found.bias == pytest.approx(found.logit, abs=1e-5)
        assert found.attention.sum() == pytest.approx(1, abs=1e-6)


def test_the_predicted_class_is_explained_unless_another_is_asked_for() -> None:
    vectors = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    found = patch_map(standard_model(), vectors)
    assert found.class_index == found.probabilities.argmax()
    with pytest.raises(InvalidArgumentError, match="0 to 1"):
        patch_map(standard_model(), vectors, 2)


def test_tokens_split_the_share_of_their_patch() -> None:
    tokens = torch.randn(5, 3, 3, 6, generator=torch.Generator().manual_seed(4))
    split = token_map(standard_model(), tokens, 1)
    whole = patch_map(standard_model(), tokens.mean((1, 2)), 1)
    assert split.shape == (5, 3, 3)
    assert np.allclose(split.sum((1, 2)), whole.values, atol=1e-5)


def test_a_layer_before_the_attention_has_no_token_map() -> None:
    with pytest.raises(InvalidArgumentError, match="pre_fc"):
        token_map(standard_model(pre_fc=4), torch.zeros(1, 2, 2, 6), 0)


@pytest.mark.parametrize(("overlap", "in_both"), [("largest", 3.0), ("mean", 1.0), ("smallest on top", -1.0)])
def test_pixels_of_several_objects_show_what_was_chosen(overlap: Overlap, in_both: float) -> None:
    masks = {"gland": left_half(), "mitosis": corner()}
    painted = paint_objects(masks, {"gland": 3.0, "mitosis": -1.0, "other": 0.5}, overlap=overlap)
    assert painted[0, 0] == in_both
    assert painted[3, 1] == 3.0
    assert (painted[:, 2:] == 0.5).all()


def test_a_map_needs_an_object() -> None:
    with pytest.raises(InvalidArgumentError, match="nothing to paint"):
        paint_objects({"gland": left_half()}, {"other": 1.0})


def test_pointing_counts_tied_maxima_by_their_share_in_the_evidence() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[0] = 2
    assert pointing_hit(heat, left_half()) == 0.5
    heat[0, 0] = 5
    assert pointing_hit(heat, left_half()) == 1.0
    heat[3, 3] = np.nan
    assert pointing_hit(heat, ~left_half()) == 0.0
