# Slabs of 10 mm instead of 7.5 mm.
_base_ = ['./main.py']

prep_pipeline = [*_base_.prep_pipeline[:-1], dict(type='MIPSlabs', thickness_mm=10)]
