# The prep pipeline: from a raw scan to slabs, in the order of the paper. data_prep/prepare_luna16.py
# runs it offline, scan inference runs the same objects online. The paper names the steps and the slab
# thickness; spacing, window, CLAHE and mask parameters are this package's (docs/protocol.md).
custom_imports = dict(imports=['lungdet_mmdet.plugin'], allow_failed_imports=False)

prep_pipeline = [
    dict(type='LoadCTScan'),
    dict(type='ResampleScan', spacing_zyx_mm=(1.25, 0.7, 0.7)),
    dict(type='OtsuLungMask', method='otsu'),
    dict(type='DropPeripheralSlices', min_area_share=0.02),
    dict(type='CropToLungs', margin_mm=5.0),
    dict(type='WindowHU', level_hu=-600, width_hu=1500),
    dict(type='CLAHE', clip_limit=2.0, tiles_yx=(8, 8)),
    dict(type='MIPSlabs', thickness_mm=7.5),
]
