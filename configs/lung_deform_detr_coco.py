# Starts from mmdet's Deformable-DETR trained on COCO instead of an ImageNet backbone. The 80-class
# heads do not fit one class and are initialised anew (the log lists them). Without a network:
# tools/train.py --load-from PATH.
_base_ = ['./lung_deform_detr.py']

load_from = ('https://download.openmmlab.com/mmdetection/v3.0/deformable_detr/'
             'deformable-detr_r50_16xb2-50e_coco/'
             'deformable-detr_r50_16xb2-50e_coco_20221029_210934-6bc7d21b.pth')
custom_hooks = [*_base_.custom_hooks, dict(type='FitCheckpointHook')]
