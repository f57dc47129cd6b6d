# mmdet's Faster R-CNN under the paper's data and schedule. Anchors of 8 to 128 px instead of COCO's
# 32 to 512: at 0.7 mm per pixel a nodule is 4 to 45 px wide.
_base_ = ['./_base_/paper_recipe.py', 'mmdet::_base_/models/faster-rcnn_r50_fpn.py']

model = dict(
    data_preprocessor=dict(bgr_to_rgb=False),
    backbone=dict(
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')),
    rpn_head=dict(anchor_generator=dict(scales=[2])),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=14),
        bbox_head=dict(num_classes=1)),
    # Grazed and excluded findings are no background.
    train_cfg=dict(
        rpn=dict(assigner=dict(ignore_iof_thr=0.5)), rcnn=dict(assigner=dict(ignore_iof_thr=0.5))),
    # FROC needs the unsure detections too; COCO's 0.05 would end its curve early.
    test_cfg=dict(rcnn=dict(score_thr=0.001)))
