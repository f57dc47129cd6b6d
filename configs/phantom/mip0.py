# Single slices instead of slabs. Split with --min-overlap-mm 0.6: a slice is 1.25 mm thick.
_base_ = ['./main.py']

prep_pipeline = [*_base_.prep_pipeline[:-1], dict(type='MIPSlabs', thickness_mm=0)]
