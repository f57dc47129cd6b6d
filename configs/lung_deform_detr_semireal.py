# The model in the box, for real lungs: trained as for phantoms on slabs side by side, it looks at
# slabs that overlap by half. What one of them cuts in two lies in the middle of the next.
_base_ = ['./lung_deform_detr_phantom.py']

prep_pipeline = [
    dict(step, stride_mm=3.75) if step['type'] == 'MIPSlabs' else step
    for step in _base_.prep_pipeline
]
model = dict(overlap_px=16)
