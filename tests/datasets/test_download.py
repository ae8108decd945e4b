"""Downloads from a server on this machine: whole, resumed, broken off, refused, malicious."""

import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest

from tests.datasets.sequences import check_one_line, make_tum
from vslam.cli.main import main
from vslam.datasets.download import Fetcher, download_sequence, fetch, tum_names, tum_url, unpack
from vslam.errors import VslamError

NOW = Fetcher(wait=lambda attempt: 0.0)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        web = self.server.web
        wanted = self.headers.get("Range")
        web.requests.append(wanted)
        data = web.files.get(self.path)
        if data is None:
            return self.send_error(web.missing)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and web.ranges else 0
        if self.headers.get("If-Range", web.tag) != web.tag:
            start = 0
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", web.tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        stop = min(len(data), start + web.breaks.pop(0)) if web.breaks else len(data)
        self.wfile.write(data[start:stop])
        self.close_connection = True


class Web:
    """What the server has, and how it behaves: `breaks` are the bytes after which connections break."""

    def __init__(self, address):
        self.url = f"http://127.0.0.1:{address[1]}"
        self.files, self.requests, self.breaks = {}, [], []
        self.ranges, self.missing, self.tag = True, 404, '"one"'


@pytest.fixture
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.web = Web(server.server_address)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.web
    server.shutdown()
    server.server_close()
    thread.join()


DATA = np.random.default_rng(5).bytes(300_000)


def archive_of(folder):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        tar.add(folder, folder.name)
    return stream.getvalue()


def failing(call, *words):
    with pytest.raises(VslamError) as error:
        call()
    check_one_line(error, *words)


def test_names():
    assert len(tum_names()) == len(set(tum_names())) > 40
    place = "https://cvg.cit.tum.de/rgbd/dataset/freiburg1/rgbd_dataset_freiburg1_xyz.tgz"
    for name in ("freiburg1_xyz", "fr1_xyz", "fr1/xyz", "rgbd_dataset_freiburg1_xyz", "rgbd_dataset_freiburg1_xyz.tgz"):
        assert tum_url(name) == place
    failing(lambda: tum_url("fr1_kitchen"), "fr1_kitchen", "freiburg3_walking_rpy")


def test_whole_file(web, tmp_path):
    web.files["/a"] = DATA
    seen = []
    fetch(f"{web.url}/a", tmp_path / "a", fetcher=Fetcher(lambda there, total: seen.append((there, total))))
    assert (tmp_path / "a").read_bytes() == DATA and [file.name for file in tmp_path.iterdir()] == ["a"]
    assert seen[-1] == (len(DATA), len(DATA)) and seen == sorted(seen)


def test_broken_connections_are_resumed(web, tmp_path):
    web.files["/a"], web.breaks = DATA, [100_000, 50_000, 0, 0, 1]
    fetch(f"{web.url}/a", tmp_path / "a", hashlib.sha256(DATA).hexdigest(), NOW)
    assert (tmp_path / "a").read_bytes() == DATA
    assert web.requests == [None, "bytes=100000-", *["bytes=150000-"] * 3, "bytes=150001-"]


def test_a_later_call_goes_on(web, tmp_path):
    web.files["/a"], web.breaks = DATA, [1000] + [0] * 5
    failing(lambda: fetch(f"{web.url}/a", tmp_path / "a", fetcher=NOW), "no connection", "again")
    assert (tmp_path / "a.part").stat().st_size == 1000
    fetch(f"{web.url}/a", tmp_path / "a", fetcher=NOW)
    assert (tmp_path / "a").read_bytes() == DATA and web.requests[-1] == "bytes=1000-"


def test_server_without_ranges_and_changed_files_start_anew(web, tmp_path):
    web.files["/a"], web.ranges, web.breaks = DATA, False, [1000]
    fetch(f"{web.url}/a", tmp_path / "a", fetcher=NOW)
    assert (tmp_path / "a").read_bytes() == DATA
    web.files["/b"], web.ranges, web.breaks = DATA, True, [1000] + [0] * 5
    failing(lambda: fetch(f"{web.url}/b", tmp_path / "b", fetcher=NOW), "no connection")
    web.files["/b"], web.tag = DATA[::-1], '"two"'
    fetch(f"{web.url}/b", tmp_path / "b", fetcher=NOW)
    assert (tmp_path / "b").read_bytes() == DATA[::-1]


def test_part_that_is_complete_or_too_long(web, tmp_path):
    web.files["/a"] = web.files["/b"] = DATA
    (tmp_path / "a.part").write_bytes(DATA)
    fetch(f"{web.url}/a", tmp_path / "a", fetcher=NOW)
    (tmp_path / "b.part").write_bytes(DATA + b"more")
    fetch(f"{web.url}/b", tmp_path / "b", fetcher=NOW)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == DATA


def test_wrong_checksum_removes_the_file(web, tmp_path):
    web.files["/a"] = DATA
    failing(lambda: fetch(f"{web.url}/a", tmp_path / "a", "0" * 64), "sha256", "try again")
    assert not (tmp_path / "a").exists() and not (tmp_path / "a.part").exists()


def test_refusals_of_the_server(web, tmp_path):
    failing(lambda: fetch(f"{web.url}/a", tmp_path / "a", fetcher=NOW), "404", "--base-url")
    assert len(web.requests) == 1
    web.missing = 503
    failing(lambda: fetch(f"{web.url}/a", tmp_path / "a", fetcher=NOW), "503")
    assert len(web.requests) == 6
    failing(lambda: fetch("file:///etc/passwd", tmp_path / "a"), "not an http")
    failing(lambda: fetch("http://127.0.0.1:1/a", tmp_path / "a", fetcher=NOW), "no connection")
    failing(lambda: fetch("http://no such host/a", tmp_path / "a", fetcher=NOW), "no such host")


def test_sequence_is_fetched_unpacked_and_read(web, tmp_path, capsys):
    from vslam.datasets import open_dataset

    made = make_tum(tmp_path / "made" / "rgbd_dataset_freiburg1_xyz")
    web.files["/freiburg1/rgbd_dataset_freiburg1_xyz.tgz"] = archive_of(made)
    words = ["download", "tum", "fr1/xyz", "--output", str(tmp_path / "out"), "--base-url", web.url, "--quiet"]
    assert main(words) == 0
    folder = tmp_path / "out" / "rgbd_dataset_freiburg1_xyz"
    assert str(folder) in capsys.readouterr().out
    assert [left.name for left in (tmp_path / "out").iterdir()] == [folder.name]
    assert len(open_dataset("tum", folder)) == 5
    asked = len(web.requests)
    assert main(words) == 0 and len(web.requests) == asked  # it is there


def test_command_line_errors(web, tmp_path, capsys):
    assert main(["download", "tum", "--list"]) == 0
    assert capsys.readouterr().out.split() == tum_names()
    for words in (["nothing_known"], [], ["fr1_rpy", "--base-url", web.url, "--output", str(tmp_path), "--quiet"]):
        assert main(["download", "tum", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def evil(tmp_path, *members):
    file = tmp_path / "evil.tgz"
    with tarfile.open(file, "w:gz") as tar:
        for name, options in members:
            info = tarfile.TarInfo(name)
            for key, value in options.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return file


@pytest.mark.parametrize(
    "member",
    [
        ("/tmp/vslam-evil", {"size": 3}),
        ("seq/../../evil", {"size": 3}),
        ("seq/link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("seq/inner", {"type": tarfile.SYMTYPE, "linkname": "rgb"}),
        ("seq/hard", {"type": tarfile.LNKTYPE, "linkname": "../../x"}),
        ("seq/device", {"type": tarfile.CHRTYPE}),
        ("seq/pipe", {"type": tarfile.FIFOTYPE}),
    ],
)
def test_malicious_archives_are_refused(tmp_path, member):
    inner = tmp_path / "inner"
    inner.mkdir()
    file = evil(inner, ("seq/rgb.txt", {"size": 3}), member)
    failing(lambda: unpack(file, inner / "seq"), "removed")
    assert list(inner.iterdir()) == [] and list(tmp_path.iterdir()) == [inner]


def test_broken_archives_are_removed(tmp_path):
    whole = archive_of(make_tum(tmp_path / "seq"))
    for k, content in enumerate((whole[: len(whole) // 2], b"<html>moved</html>", b"", whole[:-40] + b"\0" * 40)):
        file = tmp_path / f"{k}.tgz"
        file.write_bytes(content)
        failing(lambda file=file: unpack(file, tmp_path / "to"), "broken archive")
        assert not file.exists() and not (tmp_path / "to").exists()


def test_archive_of_something_else(tmp_path):
    failing(
        lambda: unpack(evil(tmp_path, ("a/x", {"size": 1}), ("b/x", {"size": 1})), tmp_path / "to"), "not one folder"
    )


def test_full_disk_is_one_line(web, tmp_path, monkeypatch):
    import errno

    from vslam.datasets import download

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_extract", full)
    web.files["/a.tgz"] = DATA
    failing(lambda: download_sequence(f"{web.url}/a.tgz", tmp_path), "disk is full")
    (tmp_path / "file").write_text("")
    failing(lambda: download_sequence(f"{web.url}/a.tgz", tmp_path / "file" / "x"), "--output")
