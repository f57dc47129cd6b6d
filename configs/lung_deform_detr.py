# Lung-DETR: the paper's detector and recipe. Everything it states is in these five files:
# the prep pipeline, the data and augmentations, the model, the schedule, the runtime.
_base_ = [
    './_base_/prep_luna16.py',
    './_base_/luna16_slabs.py',
    './_base_/deformable_detr_r50.py',
    './_base_/schedule_paper.py',
    './_base_/runtime.py',
]
