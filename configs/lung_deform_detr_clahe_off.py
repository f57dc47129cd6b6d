# Ablation: no CLAHE.
# Needs a prepared folder of its own (prepare_luna16.py --config THIS_FILE).
_base_ = ['./lung_deform_detr.py']

prep_pipeline = [step for step in _base_.prep_pipeline if step['type'] != 'CLAHE']
