# Ablation: CLAHE on the projected slabs instead of the slices.
# Needs a prepared folder of its own (prepare_luna16.py --config THIS_FILE).
_base_ = ['./lung_deform_detr.py']

prep_pipeline = [
    *[step for step in _base_.prep_pipeline if step['type'] != 'CLAHE'],
    dict(type='CLAHE', clip_limit=2.0, tiles_yx=(8, 8)),
]
