# Ablation: cross-entropy in place of the focal loss (matching costs unchanged).
_base_ = ['./lung_deform_detr.py']

model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='CrossEntropyLoss', use_sigmoid=True, loss_weight=2.0)))
