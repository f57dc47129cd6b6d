import json

from benchmarks.large_split import large_split
from lungdet_mmdet.splits.coco_json import read_slab_set


def test_a_large_split_is_read_like_any_other(tmp_path):
    # 90 slabs: scans of 40, 40 and 10, a nodule on slabs 0, 20, 40, 60 and 80.
    path = tmp_path / "test.json"
    path.write_text(json.dumps(large_split(90)))
    slab_set = read_slab_set(path)

    assert len(slab_set.slabs) == 90
    assert len(slab_set.series) == 3
    assert sum(slab.has_nodule for slab in slab_set.slabs.values()) == 5
