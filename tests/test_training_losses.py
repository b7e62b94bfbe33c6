"""The group losses behave as prompt_groups.md, section 10 demands."""

from __future__ import annotations

import pytest
import torch

from tissuetalk.models.training.group_losses import consistency, group_loss, group_weights, quality
from tissuetalk.models.training.mini import masked_bce, masked_dice

LOSSES = torch.tensor([[0.2, 0.9, 0.4], [1.0, 1.0, 1.0], [0.1, 2.5, 0.3]])


def test_qualities_of_a_group_sum_to_zero() -> None:
    assert quality(LOSSES).sum(-1) == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_group_loss_is_minus_the_scatter_of_the_losses(temperature: float) -> None:
    scatter = ((LOSSES - LOSSES.mean(-1, keepdim=True)) ** 2).sum(-1) / temperature
    assert group_loss(LOSSES, temperature=temperature) == pytest.approx(-scatter, abs=1e-6)


def test_raw_weights_are_the_gradient_of_mean_plus_group_loss() -> None:
    losses = LOSSES.clone().requires_grad_()
    (losses.mean(-1) + 0.7 * group_loss(losses, temperature=1.3)).sum().backward()
    raw = group_weights(LOSSES, gradient="weights_raw", strength=0.7, temperature=1.3)
    assert losses.grad is not None
    assert torch.allclose(losses.grad, raw, atol=1e-6)


def test_clamped_weights_are_no_weight_below_zero_and_sum_to_one() -> None:
    assert (group_weights(LOSSES, gradient="weights_raw") < 0).any()
    clamped = group_weights(LOSSES)
    assert (clamped >= 0).all()
    assert clamped.sum(-1) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("gradient", ["weights", "weights_raw", "none", "softmax"])
def test_equal_losses_weigh_the_same_in_every_mode(gradient: str) -> None:
    assert group_weights(LOSSES[1:2], gradient=gradient) == pytest.approx(torch.full((1, 3), 1 / 3))  # type: ignore[arg-type]


def test_literal_reading_changes_no_weight() -> None:
    assert group_weights(LOSSES, gradient="none") == pytest.approx(torch.full((3, 3), 1 / 3))


def test_a_group_of_one_is_plain_training() -> None:
    assert group_weights(torch.tensor([[0.8]])) == pytest.approx(torch.ones(1, 1))
    assert consistency(torch.randn(2, 1, 4, 4)) == pytest.approx(torch.zeros(2))


def test_consistency_sends_no_gradient_into_the_reference() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    consistency(logits).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:, 0] == 0).all()
    assert (logits.grad[:, 1:] != 0).any()


def test_same_sentences_are_consistent() -> None:
    logits = torch.randn(2, 1, 4, 4).expand(2, 3, 4, 4)
    assert consistency(logits) == pytest.approx(torch.zeros(2))
    assert consistency(logits, pairs=True) == pytest.approx(torch.zeros(2))


def test_all_pairs_and_sums_are_other_scales_of_the_same_distance() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = 3.0
    assert float(consistency(logits)) == pytest.approx(9)
    assert float(consistency(logits, reduction="sum")) == pytest.approx(36)
    assert float(consistency(logits, pairs=True)) == pytest.approx(9)


def test_unknown_pixels_cost_nothing() -> None:
    truth, known = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    known[:, :2] = 0
    wrong_only_where_unknown = torch.full((1, 4, 4), -20.0)
    wrong_only_where_unknown[:, :2] = 20.0
    assert float(masked_bce(wrong_only_where_unknown, truth, known)) == pytest.approx(0, abs=1e-6)
    assert float(masked_dice(wrong_only_where_unknown, truth, known)) == pytest.approx(0, abs=1e-6)
    nothing = torch.zeros_like(known)
    assert float(masked_bce(wrong_only_where_unknown, truth, nothing)) == 0
    assert float(masked_dice(wrong_only_where_unknown, truth, nothing)) == 0
