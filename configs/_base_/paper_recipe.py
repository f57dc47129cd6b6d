# Everything of the paper's recipe but the model: prep pipeline, data, schedule, runtime.
_base_ = ['./prep_luna16.py', './luna16_slabs.py', './schedule_paper.py', './runtime.py']
