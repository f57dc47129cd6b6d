import gzip
import io

from lungdet_mmdet.runs.files import remaining_bytes


def test_counts_what_is_left_of_a_stream():
    stream = io.BytesIO(b"0123456789")
    stream.read(4)
    assert remaining_bytes(stream, at_most=1000) == 6
    assert remaining_bytes(stream, at_most=1000) == 0


def test_stops_within_a_chunk_of_the_limit():
    # 64 MiB of zeros in 64 KiB: the rest is never inflated.
    with gzip.open(io.BytesIO(gzip.compress(bytes(1 << 26)))) as stream:
        assert remaining_bytes(stream, at_most=10) == 1 << 20
