"""Sigmoid focal loss in pure PyTorch (Lin et al., Focal Loss for Dense Object Detection, 2017).

Argument order and in-place results are those of ``mmcv._ext``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss_forward(
    input: Tensor,  # noqa: A002  (mmcv's own argument names)
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the loss of every sample and class into ``output``.

    Parameters
    ----------
    input
        (samples, classes) logits.
    target
        (samples,) class indices; one outside [0, classes) is background, negative for all classes.
    weight
        (classes,) weight of the samples whose target is that class, or empty. Background samples
        weigh 1: there is no entry for them.
    output
        (samples, classes), overwritten.
    gamma, alpha
        Focusing exponent, and share of the positives.
    """
    logits = _computable(input)
    positive = _is_target(logits, target)
    p = logits.sigmoid()
    loss_if_positive = -alpha * (1 - p).pow(gamma) * F.logsigmoid(logits)
    loss_if_negative = -(1 - alpha) * p.pow(gamma) * F.logsigmoid(-logits)
    loss = torch.where(positive, loss_if_positive, loss_if_negative)
    output.copy_(loss * _sample_weight(logits, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write d loss / d logit into ``grad_input``; arguments as in the forward pass."""
    logits = _computable(input)
    positive = _is_target(logits, target)
    p = logits.sigmoid()
    slope_if_positive = -alpha * (1 - p).pow(gamma) * (1 - p - gamma * p * F.logsigmoid(logits))
    slope_if_negative = (1 - alpha) * p.pow(gamma) * (p - gamma * (1 - p) * F.logsigmoid(-logits))
    slope = torch.where(positive, slope_if_positive, slope_if_negative)
    grad_input.copy_(slope * _sample_weight(logits, target, weight))


def _computable(logits: Tensor) -> Tensor:
    """Half precision is computed in single precision: powers of small p underflow in fp16."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _is_target(logits: Tensor, target: Tensor) -> Tensor:
    """(samples, classes) bool, true at each sample's own class."""
    classes = torch.arange(logits.shape[1], device=target.device)
    return target[:, None] == classes


def _sample_weight(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(samples, 1) weight by target class; 1 for background and where no weights are given."""
    ones = logits.new_ones(target.shape)
    if weight.numel() == 0:
        return ones[:, None]
    foreground = (target >= 0) & (target < len(weight))
    own = weight.to(logits)[target.clamp(0, len(weight) - 1)]
    return torch.where(foreground, own, ones)[:, None]
