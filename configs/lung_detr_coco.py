# The paper's baseline from mmdet's DETR trained on COCO, for the epochs that the paper gives it: 20.
# The 80-class head does not fit one class and is initialised anew. Without a network: tools/train.py
# --load-from PATH.
_base_ = ['./lung_detr.py']

load_from = ('https://download.openmmlab.com/mmdetection/v3.0/detr/detr_r50_8xb2-150e_coco/'
             'detr_r50_8xb2-150e_coco_20221023_153551-436d03e8.pth')
custom_hooks = [*_base_.custom_hooks, dict(type='FitCheckpointHook')]
train_cfg = dict(max_epochs=20)
