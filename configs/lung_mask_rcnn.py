# mmdet's Mask R-CNN on slabs with nodule masks (prepare_luna16.py --nodule-masks): boxes and outlines.
# Anchors as in lung_faster_rcnn.py.
_base_ = ['./_base_/paper_recipe.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py']

model = dict(
    data_preprocessor=dict(bgr_to_rgb=False),
    backbone=dict(
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')),
    rpn_head=dict(anchor_generator=dict(scales=[2])),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=14),
        bbox_head=dict(num_classes=1),
        mask_roi_extractor=dict(finest_scale=14),
        mask_head=dict(num_classes=1)),
    # Grazed and excluded findings are no background.
    train_cfg=dict(
        rpn=dict(assigner=dict(ignore_iof_thr=0.5)), rcnn=dict(assigner=dict(ignore_iof_thr=0.5))),
    test_cfg=dict(rcnn=dict(score_thr=0.001)))
train_dataloader = dict(dataset=dict(with_masks=True))
val_evaluator = [
    *_base_.val_evaluator,
    dict(type='MaskBandMetric', ann_file=_base_.data_root + '/annotations/val.json')]
test_evaluator = [
    *_base_.test_evaluator,
    dict(type='MaskBandMetric', ann_file=_base_.data_root + '/annotations/test.json')]
