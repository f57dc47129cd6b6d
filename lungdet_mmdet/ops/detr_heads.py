# SPDX-License-Identifier: Apache-2.0
"""Detection heads in single precision under autocast, and targets matched for a batch at once.

mmdet's heads take the precision of whatever surrounds them. In half precision its focal matching
cost is -inf from a logit of 8.4 on (``1 - p + 1e-12`` is 0), which ends a run, and in bfloat16 a
box is known to 2 px on a slab of 500. :func:`run_heads_in_full_precision` keeps everything that
makes boxes, costs and losses in single precision, whatever is around it, and changes no file and
no class of mmdet: each such module of the detector gets a subclass of its own class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps, bbox_xyxy_to_cxcywh
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from lungdet_mmdet.errors import LungDetError

COST_METHODS = ("loss_by_feat", "loss_and_target", "predict_by_feat")
"""Methods of mmdet's heads, with or without queries, that make costs, losses and boxes."""

IGNORED_SHARE = 0.5
"""Of a box within a region to be ignored; COCO's rule for crowds takes the same at IoU 0.5."""

POINT_LAYERS = ("reference_points_fc",)
"""Layers of a detector whose output is a position."""


def run_heads_in_full_precision(detector: nn.Module) -> None:
    """Let a detector's heads compute in single precision under autocast; once or more often.

    For DETR-like detectors these are the head, its box branches, which the decoder calls as well,
    and the reference points; for others losses and decoding of boxes alone. Names and values of
    the weights stay as they are.
    """
    # Not above: all of mmdet's models are slow to import, and not every process needs them.
    from mmdet.models.dense_heads import DETRHead

    for module in list(detector.modules()):
        methods = [name for name in COST_METHODS if callable(getattr(module, name, None))]
        if isinstance(module, DETRHead):
            _specialise(module, (*methods, "forward"), base=BatchMatching)
            for branch in getattr(module, "reg_branches", ()):
                _specialise(branch, ("forward",))
        elif methods:
            _specialise(module, methods)
        for name in POINT_LAYERS:
            if isinstance(getattr(module, name, None), nn.Module):
                _specialise(getattr(module, name), ("forward",))


def _specialise(module: nn.Module, methods: Sequence[str], base: type = object) -> None:
    """Give a module a subclass of its class in which these methods run in single precision.

    A subclass rather than functions set on the object: a copy of the module, as for an average of
    its weights, then calls its own weights.
    """
    kind = type(module)
    if kind.__name__.startswith(_PREFIX):
        return
    bases = (kind,) if base is object else (base, kind)
    plain = type(kind.__name__, bases, {})
    changed = {name: _in_single_precision(getattr(plain, name)) for name in methods}
    module.__class__ = type(_PREFIX + kind.__name__, (plain,), changed)


_PREFIX = "FullPrecision"


def _in_single_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that leaves autocast and takes half-precision tensors as single ones."""

    @functools.wraps(method)
    def run(self: nn.Module, *args: Any, **options: Any) -> Any:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            return method(self, *_single(args), **_single(options))

    return run


def _single(value: Any) -> Any:
    """Return tensors of half precision as fp32, in lists, tuples and dicts as well."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if type(value) in (list, tuple):
        return type(value)(_single(item) for item in value)
    if type(value) is dict:
        return {key: _single(item) for key, item in value.items()}
    return value


class BatchMatching:
    """Targets of a DETR head for all images at once; stands before the head's own class.

    mmdet matches image by image and waits for the GPU four times in each. Here slabs without a
    nodule, most of them, need no matching, and the costs of the others leave the GPU together: one
    wait for a layer, none where the batch holds no nodule. And where mmdet's heads know no regions
    to be ignored, a query whose box lies in one by half learns nothing, unless it is matched.
    """

    ignored: Sequence[Tensor] = ()
    """(regions, 4) xyxy of each image of the batch in work."""

    def loss(self, *args: Any, batch_data_samples: Sequence[Any], **options: Any) -> dict:
        """Return the losses of mmdet's method, from the same arguments."""
        self.ignored = [
            sample.ignored_instances.bboxes if "ignored_instances" in sample else ()
            for sample in batch_data_samples
        ]
        return super().loss(*args, batch_data_samples=batch_data_samples, **options)

    def get_targets(
        self,
        cls_scores_list: list[Tensor],
        bbox_preds_list: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
    ) -> tuple:
        """Return what mmdet's method does, from the same arguments.

        Raises LungDetError if the network's output is not finite; naming the slabs.
        """
        from mmdet.models.task_modules.assigners import HungarianAssigner

        if type(self.assigner) is not HungarianAssigner:
            return super().get_targets(
                cls_scores_list, bbox_preds_list, batch_gt_instances, batch_img_metas
            )
        boxes = torch.stack(bbox_preds_list).detach()
        images, queries, _ = boxes.shape
        labels = boxes.new_full((images, queries), self.num_classes, dtype=torch.long)
        targets, weights = torch.zeros_like(boxes), torch.zeros_like(boxes)
        teaches = boxes.new_ones(images, queries)
        for image, regions in enumerate(self.ignored):
            if len(regions):
                scale = boxes.new_tensor(_width_height_twice(batch_img_metas[image]))
                predicted = bbox_cxcywh_to_xyxy(boxes[image]) * scale
                share = bbox_overlaps(predicted, regions.to(boxes), mode="iof").amax(dim=1)
                teaches[image] = (share < IGNORED_SHARE).to(boxes)
        matched = self._match(cls_scores_list, boxes, batch_gt_instances, batch_img_metas)
        if matched.numel():
            image, query, truth = matched.to(boxes.device, non_blocking=True)
            sizes = boxes.new_tensor([_width_height_twice(meta) for meta in batch_img_metas])
            true_boxes = torch.cat([truths.bboxes for truths in batch_gt_instances])
            true_labels = torch.cat([truths.labels for truths in batch_gt_instances])
            labels[image, query] = true_labels[truth]
            targets[image, query] = bbox_xyxy_to_cxcywh(true_boxes[truth] / sizes[image])
            weights[image, query] = teaches[image, query] = 1.0
        positives = matched.shape[1]
        return (
            list(labels),
            list(teaches),
            list(targets),
            list(weights),
            positives,
            images * queries - positives,
        )

    def _match(
        self,
        cls_scores_list: list[Tensor],
        boxes: Tensor,
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
    ) -> Tensor:
        """Return (3, matches): image, query, and index among the true boxes of all images."""
        counts = [len(truths) for truths in batch_gt_instances]
        positive = [image for image, count in enumerate(counts) if count]
        if not positive or not boxes.shape[1]:
            return torch.empty(3, 0, dtype=torch.long)
        costs = []
        for image in positive:
            meta = batch_img_metas[image]
            scale = boxes.new_tensor(_width_height_twice(meta))
            predictions = InstanceData(
                scores=cls_scores_list[image].detach(),
                bboxes=bbox_cxcywh_to_xyxy(boxes[image]) * scale,
            )
            costs.append(
                sum(
                    cost(
                        pred_instances=predictions,
                        gt_instances=batch_gt_instances[image],
                        img_meta=meta,
                    )
                    for cost in self.assigner.match_costs
                )
            )
        on_cpu = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()  # the one wait
        found, first = [], 0
        for image in positive:
            cost = on_cpu[first : first + boxes.shape[1] * counts[image]]
            first += len(cost)
            try:
                query, truth = linear_sum_assignment(cost.reshape(boxes.shape[1], -1))
            except ValueError as error:  # NaN, or infinities of both signs
                raise not_finite(
                    "the network's output is not finite (NaN or infinite)", batch_img_metas
                ) from error
            before = sum(counts[:image])
            found += [(image, int(q), before + int(t)) for q, t in zip(query, truth, strict=True)]
        return torch.tensor(found, dtype=torch.long).T


def _width_height_twice(meta: Mapping[str, Any]) -> tuple[int, int, int, int]:
    height, width = meta["img_shape"][:2]
    return width, height, width, height


def not_finite(what: str, metas: Sequence[Mapping[str, Any]]) -> LungDetError:
    """Return the error for a network that gives no numbers on a batch of slabs."""
    return LungDetError(
        f"{what}. Slabs of the batch: {'; '.join(map(slab_name, metas))}. Look at them with "
        "`lungdet browse`; if they are sound, lower optim_wrapper.optimizer.lr or train "
        "without AMP, and go on from the last checkpoint with --resume"
    )


def slab_name(meta: Mapping[str, Any]) -> str:
    """Name a slab by series and index, or by its file where it has none."""
    if "seriesuid" in meta:
        return f"{meta['seriesuid']} slab {meta['slab_index']}"
    return str(meta.get("img_path", meta.get("img_id", "?")))
