# Ablation: nothing is blacked out, so ribs and mediastinum enter the projection. The lungs are found
# all the same: slices are dropped and slabs cropped by them.
# Needs a prepared folder of its own (prepare_luna16.py --config THIS_FILE).
_base_ = ['./lung_deform_detr.py']

prep_pipeline = [
    dict(step, apply_mask=False) if step['type'] == 'WindowHU' else step
    for step in _base_.prep_pipeline
]
