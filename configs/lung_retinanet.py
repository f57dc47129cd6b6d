# mmdet's RetinaNet under the paper's data and schedule, with anchors from 8 px on the finest level
# (stride 4): at 0.7 mm per pixel a nodule is 4 to 45 px wide.
_base_ = ['./_base_/paper_recipe.py', 'mmdet::_base_/models/retinanet_r50_fpn.py']

model = dict(
    data_preprocessor=dict(bgr_to_rgb=False),
    backbone=dict(
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')),
    neck=dict(start_level=0),
    bbox_head=dict(
        num_classes=1,
        anchor_generator=dict(octave_base_scale=2, strides=[4, 8, 16, 32, 64])),
    train_cfg=dict(assigner=dict(ignore_iof_thr=0.5)),  # grazed and excluded findings
    # FROC needs the unsure detections too; COCO's 0.05 would end its curve early.
    test_cfg=dict(score_thr=0.001))
