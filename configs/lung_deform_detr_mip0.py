# Ablation: single slices instead of slabs. Split with --min-overlap-mm 0.6: a slice is 1.25 mm thick.
# Needs a prepared folder of its own (prepare_luna16.py --config THIS_FILE).
_base_ = ['./lung_deform_detr.py']

prep_pipeline = [*_base_.prep_pipeline[:-1], dict(type='MIPSlabs', thickness_mm=0)]
