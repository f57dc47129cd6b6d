# Ablation: slabs of 5 mm instead of 7.5 mm.
# Needs a prepared folder of its own (prepare_luna16.py --config THIS_FILE).
_base_ = ['./lung_deform_detr.py']

prep_pipeline = [*_base_.prep_pipeline[:-1], dict(type='MIPSlabs', thickness_mm=5)]
