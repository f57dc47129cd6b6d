# Iterative box refinement: each decoder layer corrects the boxes of the one before.
_base_ = ['./lung_deform_detr.py']

model = dict(with_box_refine=True)
