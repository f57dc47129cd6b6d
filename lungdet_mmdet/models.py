# SPDX-License-Identifier: Apache-2.0
"""DINO, a Deformable-DETR, for nodules of a few pixels on slabs of any size, seen by windows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from mmcv.ops import nms
from mmdet.models.detectors import DINO
from mmdet.models.layers.transformer import MLP
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmengine.structures import InstanceData
from torch import Tensor

from lungdet_mmdet.errors import LungDetError

BOX_CODE = 512
"""Numbers in which OpenMMLab's own decoder codes a box, whatever the width of its layers."""


@dataclass(frozen=True)
class SlabWindow:
    """One window of a slab, in pixels.

    Parameters
    ----------
    start_yx : its first row and column.
    core_low_yx, core_high_yx : it answers for centres from low up to, but without, high.
    """

    start_yx: tuple[int, int]
    core_low_yx: tuple[float, float]
    core_high_yx: tuple[float, float]


def slab_windows(lit: np.ndarray, *, window_px: int, overlap_px: int) -> list[SlabWindow]:
    """Cover what a slab shows with as few windows as will do, row after row of them.

    Every lit pixel lies in a window, at least half of ``overlap_px`` from its rim; the cores share
    out the whole plane without gap or overlap. Windows may reach beyond the slab. One that is black
    gets a window at its corner.

    Parameters
    ----------
    lit : (y, x) bool; where a nodule may have its centre.
    window_px : side of the square windows.
    overlap_px : how much neighbours overlap where no black lies between; smaller than the window.
    """
    core_px, windows = window_px - overlap_px, []
    for y in _along_one_axis(lit.any(axis=1), core_px=core_px, window_px=window_px):
        rows = lit[y.first : y.end].any(axis=0)
        for x in _along_one_axis(rows, core_px=core_px, window_px=window_px):
            windows.append(SlabWindow((y.start, x.start), (y.low, x.low), (y.high, x.high)))
    return windows


class _Stretch(NamedTuple):
    """Lit pixels from first to end along an axis, start of their window, and ends of its core."""

    first: int
    end: int
    start: int
    low: float
    high: float


def _along_one_axis(lit: np.ndarray, *, core_px: int, window_px: int) -> list[_Stretch]:
    """Share out the lit pixels of one axis to windows, from the first on."""
    left = np.flatnonzero(lit) if lit.any() else np.zeros(1, int)
    ends: list[tuple[int, int]] = []
    while len(left):
        mine = left < left[0] + core_px
        ends.append((int(left[0]), int(left[mine][-1]) + 1))
        left = left[~mine]
    # The border between two cores is the middle of what lies between their pixels.
    borders = [0.5 * (one[1] + next_one[0]) for one, next_one in pairwise(ends)]
    lows, highs = (-np.inf, *borders), (*borders, np.inf)
    return [
        _Stretch(first, end, (first + end - window_px) // 2, low, high)
        for (first, end), low, high in zip(ends, lows, highs, strict=True)
    ]


WINDOWS_AT_ONCE = 16


class SharedPositions(torch.nn.Module):
    """A positional encoding that is computed once for all pictures of a batch without padding."""

    def __init__(self, encoding: torch.nn.Module) -> None:
        super().__init__()
        self.encoding = encoding

    def forward(self, mask: Tensor | None, input: Tensor | None = None) -> Tensor:
        """Return (batch, channels, y, x); arguments as mmdet's."""
        if mask is not None or input is None:
            return self.encoding(mask, input=input)
        return self.encoding(None, input=input[:1]).expand(len(input), -1, -1, -1)


@MODELS.register_module()
class SlabDINO(DINO):
    """DINO that sees every slab through windows of one size, with dense supervision.

    Two things differ from mmdet's DINO:

    - **Windows.** DETR heads give box sizes as shares of the image. Slabs cut to the lungs have a
      size of their own in every scan, so one millimetre would be many numbers. Here training cuts
      windows (``RandomSlabWindow``), and prediction covers the slab with windows of the same size:
      a millimetre is the same number everywhere, and a step costs a fraction.
    - **Dense supervision.** One-to-one matching gives each nodule one token of the encoder to learn
      from. Here the tokens around its centre all learn to propose it, and those within regions to
      be ignored learn nothing.

    Parameters
    ----------
    window_px : side of the windows, as in training; a multiple of the coarsest stride.
    overlap_px : overlap of neighbouring windows; a nodule up to this size is whole in one.
    dense_neighbours : tokens around a nodule's centre that learn to propose it.
    dense_weight : weight of the dense losses; 0 leaves them out.
    nms_iou : of boxes that overlap by more, the better one is kept.
    """

    def __init__(
        self,
        *args: Any,
        window_px: int = 128,
        overlap_px: int = 40,
        dense_neighbours: int = 4,
        dense_weight: float = 1.0,
        nms_iou: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.window_px = window_px
        self.overlap_px = overlap_px
        self.dense_neighbours = dense_neighbours
        self.dense_weight = dense_weight
        self.nms_iou = nms_iou

    def _init_layers(self) -> None:
        super()._init_layers()
        self.positional_encoding = SharedPositions(self.positional_encoding)
        # The continuation's decoder has the layer that takes a box's code at every width;
        # OpenMMLab's own has it at a width of 256 alone.
        width, head = self.embed_dims, self.decoder.ref_point_head
        if head.layers[0].in_features == 2 * width:
            self.decoder.ref_point_head = MLP(BOX_CODE, width, width, 2)

    def pre_decoder(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        spatial_shapes: Tensor,
        batch_data_samples: list[DetDataSample] | None = None,
    ) -> tuple[dict, dict]:
        """Choose the queries; arguments and results as mmdet's.

        In training the chosen ones have no losses of their own (the dense ones take their place),
        so boxes are computed for them alone.
        """
        if self.dense_weight <= 0:
            return super().pre_decoder(memory, memory_mask, spatial_shapes, batch_data_samples)
        tokens, proposals = self.gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
        head, last = self.bbox_head, self.decoder.num_layers
        scores = head.cls_branches[last](tokens)  # (batch, tokens, classes)
        best = scores.amax(-1).topk(self.num_queries, dim=1).indices[..., None]
        with torch.no_grad():
            chosen = tokens.gather(1, best.expand(-1, -1, tokens.shape[2]))
            boxes = head.reg_branches[last](chosen) + proposals.gather(1, best.expand(-1, -1, 4))
        query = self.query_embedding.weight.expand(len(memory), -1, -1)
        inputs = {"query": query, "memory": memory, "dn_mask": None}
        if not self.training:
            return {**inputs, "reference_points": boxes.sigmoid()}, {}
        self._dense = tokens, proposals, scores
        noisy_query, noisy_boxes, mask, meta = self.dn_query_generator(batch_data_samples)
        inputs = {
            "query": torch.cat([noisy_query, query], dim=1),
            "memory": memory,
            "reference_points": torch.cat([noisy_boxes, boxes], dim=1).sigmoid(),
            "dn_mask": mask,
        }
        return inputs, {"enc_outputs_class": None, "enc_outputs_coord": None, "dn_meta": meta}

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> dict:
        """Return DINO's losses and the dense ones.

        Raises LungDetError if the pictures are not windows of the size that prediction will cut.
        """
        if tuple(batch_inputs.shape[2:]) != (self.window_px, self.window_px):
            height, width = batch_inputs.shape[2:]
            raise LungDetError(
                f"SlabDINO learns from windows of {self.window_px} px and was given {height} x "
                f"{width}: in the train_pipeline RandomSlabWindow, times a Resize after it, has to "
                f"give {self.window_px} px"
            )
        losses = super().loss(batch_inputs, batch_data_samples)
        if self.dense_weight > 0:
            losses.update(self._dense_losses(batch_data_samples))
        return losses

    def _dense_losses(self, samples: list[DetDataSample]) -> dict[str, Tensor]:
        tokens, proposals, all_scores = self._dense
        del self._dense
        head, last = self.bbox_head, self.decoder.num_layers
        boxes = proposals[0].sigmoid()  # (tokens, 4) cxcywh, the same for all windows
        labels, weights = [], []
        chosen, targets = [], []
        for index, sample in enumerate(samples):
            label, weight, token, target = dense_targets(
                boxes, sample, neighbours=self.dense_neighbours, window_px=self.window_px
            )
            labels.append(label)
            weights.append(weight)
            chosen.append(token + index * len(boxes))
            targets.append(target)
        positive, target = torch.cat(chosen), torch.cat(targets)
        factor = max(1, len(positive))
        scores = all_scores.flatten(0, 1).float()  # under mixed precision, too
        losses = {
            "dense_loss_cls": head.loss_cls(
                scores, torch.cat(labels), torch.cat(weights), avg_factor=factor
            )
        }
        found = head.reg_branches[last](tokens.flatten(0, 1)[positive])
        found = (found + proposals.flatten(0, 1)[positive]).sigmoid()
        losses["dense_loss_bbox"] = head.loss_bbox(found, target, avg_factor=factor)
        losses["dense_loss_iou"] = head.loss_iou(
            bbox_cxcywh_to_xyxy(found) * self.window_px,
            bbox_cxcywh_to_xyxy(target) * self.window_px,
            avg_factor=factor,
        )
        return {name: self.dense_weight * loss for name, loss in losses.items()}

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample], rescale: bool = True
    ) -> list[DetDataSample]:
        """Detect on windows and put their boxes together, one list for each slab."""
        results = [
            self._predict_slab(image, sample, rescale=rescale)
            for image, sample in zip(batch_inputs, batch_data_samples, strict=True)
        ]
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _predict_slab(self, image: Tensor, sample: DetDataSample, *, rescale: bool) -> InstanceData:
        height, width = sample.img_shape[:2]
        image = image[:, :height, :width]
        # Outside the lungs a slab is black, and no nodule has its centre there. Its neighbours in
        # the other channels may be lit where it is not.
        own = image[len(image) // 2]
        lit = (own > self._black(image)[len(image) // 2] + 1e-4).cpu().numpy()
        windows = slab_windows(lit, window_px=self.window_px, overlap_px=self.overlap_px)
        cut = [self._cut(image, window) for window in windows]
        parts = []
        for first in range(0, len(cut), WINDOWS_AT_ONCE):
            parts += self._predict_windows(torch.stack(cut[first : first + WINDOWS_AT_ONCE]))
        kept = InstanceData.cat(
            [
                _core_part(part, window, (height, width))
                for part, window in zip(parts, windows, strict=True)
            ]
        )
        if len(kept):
            _, best = nms(kept.bboxes, kept.scores, self.nms_iou)
            kept = kept[best[: self.test_cfg.get("max_per_img", len(best))]]
        if rescale:
            kept.bboxes = kept.bboxes / kept.bboxes.new_tensor(sample.scale_factor).repeat(2)
        return kept

    def _black(self, image: Tensor) -> Tensor:
        """Return what black is in a normalised picture, (c, 1, 1)."""
        preprocessor = self.data_preprocessor
        return (-preprocessor.mean / preprocessor.std).to(image).view(-1, 1, 1)

    def _cut(self, image: Tensor, window: SlabWindow) -> Tensor:
        """Return a window of a normalised slab (c, y, x); beyond the slab it is black."""
        (y, x), size = window.start_yx, self.window_px
        part = image[:, max(0, y) : max(0, y + size), max(0, x) : max(0, x + size)]
        if part.shape[1:] == (size, size):
            return part
        whole = self._black(part).expand(-1, size, size).clone()
        top, left = max(0, -y), max(0, -x)
        whole[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        return whole

    def _predict_windows(self, windows: Tensor) -> list[InstanceData]:
        """Detect on windows (n, c, y, x); boxes in pixels of the window."""
        size = (self.window_px, self.window_px)
        samples = [
            DetDataSample(metainfo={"img_shape": size, "batch_input_shape": size})
            for _ in range(len(windows))
        ]
        queries = self.forward_transformer(self.extract_feat(windows), samples)
        return self.bbox_head.predict(**queries, rescale=False, batch_data_samples=samples)


def _core_part(found: InstanceData, window: SlabWindow, size_yx: tuple[int, int]) -> InstanceData:
    """Move a window's boxes to their place in the slab and keep those of its core.

    A window may reach beyond the slab: what has its centre there is left out, and boxes end where
    the slab does.
    """
    y, x = window.start_yx
    found.bboxes = found.bboxes + found.bboxes.new_tensor([x, y, x, y])
    centres_xy = 0.5 * (found.bboxes[:, :2] + found.bboxes[:, 2:])
    low = centres_xy.new_tensor(window.core_low_yx[::-1])
    high = centres_xy.new_tensor(window.core_high_yx[::-1])
    end = centres_xy.new_tensor(size_yx[::-1])
    found.bboxes = found.bboxes.clamp(min=0).minimum(end.repeat(2))
    inside = (centres_xy >= low.clamp(min=0)) & (centres_xy < high.minimum(end))
    return found[inside.all(dim=1)]


def dense_targets(
    boxes: Tensor, sample: DetDataSample, *, neighbours: int, window_px: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Say which tokens of a window learn to propose which nodule.

    Of the level whose boxes are nearest to the nodule's size, the tokens nearest to its centre do.
    All others on the nodule learn nothing, as those on regions to be ignored; the rest learn that
    nothing is there.

    Parameters
    ----------
    boxes : (tokens, 4) initial boxes (cx, cy, w, h) as shares of the window; invalid ones, at its
        rim, are all 1 and propose nothing.
    sample : annotations in pixels of the window.
    neighbours : tokens for each nodule.
    window_px : side of the window.

    Returns
    -------
    labels : (tokens,) 0 for nodule, 1 for background.
    weights : (tokens,) 0 where nothing is learnt.
    positive : indices of the tokens that are to propose a nodule.
    targets : (len(positive), 4) its box, as ``boxes``.
    """
    labels = torch.ones(len(boxes), dtype=torch.long, device=boxes.device)
    weights = boxes.new_ones(len(boxes))
    nodules = bbox_xyxy_to_cxcywh(sample.gt_instances.bboxes) / window_px
    ignored = bbox_xyxy_to_cxcywh(sample.ignored_instances.bboxes) / window_px
    for box in torch.cat([nodules, ignored]):
        offset = (boxes[:, :2] - box[:2]).abs()
        weights[(offset < 0.5 * box[2:] + 2.0 / window_px).all(dim=1)] = 0.0
    positive, targets = [], []
    is_valid = boxes[:, 2] < 1.0
    for box in nodules:
        scale = (boxes[:, 2:] / box[2:]).log().abs().sum(dim=1)
        distance = (boxes[:, :2] - box[:2]).norm(dim=1)
        distance = distance.masked_fill(scale > scale[is_valid].min() + 1e-3, float("inf"))
        distance = distance.masked_fill(~is_valid, float("inf"))
        nearest = distance.topk(neighbours, largest=False).indices
        positive.append(nearest)
        targets.append(box.expand(neighbours, 4))
    if not positive:
        return labels, weights, labels.new_zeros(0), boxes.new_zeros(0, 4)
    tokens = torch.cat(positive)
    labels[tokens], weights[tokens] = 0, 1.0
    return labels, weights, tokens, torch.cat(targets)
