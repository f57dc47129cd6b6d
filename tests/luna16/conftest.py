"""A small archive on this machine that answers as Zenodo does, and fails as told."""

import hashlib
import io
import json
import threading
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest


@dataclass
class Archive:
    """Files by record, and the faults that the server shows.

    cut_after: per file, how many bytes each successive answer sends before the line is cut.
    statuses: per file, status codes of the first answers.
    """

    records: dict = field(default_factory=lambda: {3723295: {}, 4121926: {}})
    checksums: dict = field(default_factory=dict)
    cut_after: dict = field(default_factory=lambda: defaultdict(list))
    statuses: dict = field(default_factory=lambda: defaultdict(list))
    serves_ranges: bool = True
    requests: list = field(default_factory=list)
    address: str = ""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def note(self, path: str, asked: str | None) -> None:
        with self.changed:
            self.requests.append((path, asked))
            self.changed.notify_all()

    def wait_for_requests(self, name: str, count: int, timeout_s: float = 30.0) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(self.ranges_asked(name)) >= count, timeout_s)

    @property
    def api(self) -> str:
        return f"{self.address}/api/records"

    def put(self, name: str, data: bytes, record: int = 3723295) -> None:
        self.records[record][name] = data

    def ranges_asked(self, name: str) -> list:
        return [r for path, r in self.requests if path == f"/files/{name}"]

    def listing(self, record: int) -> bytes:
        files = [
            {
                "key": name,
                "size": len(data),
                "checksum": self.checksums.get(name, "md5:" + hashlib.md5(data).hexdigest()),
                "links": {"self": f"{self.address}/files/{name}"},
            }
            for name, data in self.records[record].items()
        ]
        return json.dumps({"files": files, "metadata": {"license": {"id": "cc-by-4.0"}}}).encode()


class _Handler(BaseHTTPRequestHandler):
    archive: Archive

    def do_GET(self) -> None:
        archive = self.archive
        archive.note(self.path, self.headers.get("Range"))
        kind, _, name = self.path.rpartition("/")
        if kind == "/api/records":
            self._send(200, archive.listing(int(name)), {})
            return
        if archive.statuses[name]:
            self._send(archive.statuses[name].pop(0), b"", {})
            return
        data = next((files[name] for files in archive.records.values() if name in files), None)
        if data is None:
            self._send(404, b"", {})
            return
        asked = self.headers.get("Range")
        if asked and archive.serves_ranges:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(data):
                self._send(416, b"", {})
                return
            span = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            self._send(206, data[begin:], {"Content-Range": span}, name)
        else:
            self._send(200, data, {}, name)

    def _send(self, status: int, body: bytes, headers: dict, name: str = "") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        cuts = self.archive.cut_after[name]
        self.wfile.write(body[: cuts.pop(0)] if cuts else body)

    def log_message(self, format: str, *args) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def archive():
    archive = Archive()
    handler = type("Handler", (_Handler,), {"archive": archive})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    archive.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield archive
    server.shutdown()
    thread.join()
    server.server_close()


def zipped(files: dict) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in files.items():
            target.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture(name="zipped")
def zipped_fixture():
    return zipped


def scan_files(uid: str, *, value: int = -1000) -> dict:
    """A scan of 2 x 3 x 4 voxels as LUNA16 stores it."""
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\n"
        "ElementSpacing = 0.7 0.7 1.25\nOffset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        f"ElementDataFile = {uid}.raw\n"
    )
    pixels = np.full((2, 3, 4), value, dtype="<i2")
    return {f"{uid}.mhd": header.encode(), f"{uid}.raw": pixels.tobytes()}


@pytest.fixture
def small_luna16(archive):
    """Tables, subset 0 with scans 1.1 and 1.2, subset 7 (second record) with scan 7.1."""
    archive.put("annotations.csv", b"seriesuid,coordX,coordY,coordZ,diameter_mm\n1.1,1,2,1,5.0\n")
    evaluation = {
        "evaluationScript/annotations/annotations_excluded.csv": b"seriesuid,coordX\n",
        "evaluationScript/annotations/seriesuids.csv": b"1.1\n1.2\n7.1\n",
        "evaluationScript/noduleCADEvaluationLUNA16.py": b"print 1\n",
    }
    archive.put("evaluationScript.zip", zipped(evaluation))
    subset0 = {**scan_files("1.1"), **scan_files("1.2", value=40)}
    archive.put("subset0.zip", zipped({f"subset0/{n}": d for n, d in subset0.items()}))
    subset7 = {f"subset7/{n}": d for n, d in scan_files("7.1").items()}
    archive.put("subset7.zip", zipped(subset7), record=4121926)
    return archive
