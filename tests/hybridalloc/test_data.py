"""Data sets: hashes, where files are looked for, and what is said when one is missing or malformed."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hybridalloc.data import registry as data
from hybridalloc.data.registry import DataError
from hybridalloc.data.sources import DataFile, Dataset
from hybridalloc.errors import UnknownNameError

REAL_DATA = os.environ.get("HYBRIDALLOC_DATA", "")  # before a fixture hides it
TEXT = b"Latitude,Longitude\n-37.8,144.9\n"


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HYBRIDALLOC_DATA", raising=False)
    monkeypatch.setenv("HYBRIDALLOC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A loopback HTTP server that serves TEXT at /right and other bytes at /wrong; lists what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404 if self.path == "/none" else 200)
            self.end_headers()
            self.wfile.write(TEXT if self.path == "/right" else b"something else")

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{service.server_port}", asked
    service.shutdown()
    service.server_close()


def register(monkeypatch: pytest.MonkeyPatch, *urls: str, name: str = "points.csv", note: str = "") -> None:
    entry = DataFile(name, hashlib.sha256(TEXT).hexdigest(), urls, note)
    made_up = Dataset("made-up", "a test", "nowhere", "MIT", "nobody", (entry,))
    monkeypatch.setattr(data, "DATASETS", (made_up,))


def test_registry_is_complete_and_pinned() -> None:
    names = [dataset.name for dataset in data.datasets()]
    assert names == ["eua", "openb", "fgd", "azure_llm", "mooncake", "gavel", "simbench"]
    for dataset in data.datasets():
        assert dataset.licence and dataset.citation and dataset.origin.startswith("https://")
        for entry in dataset.files:
            assert len(bytes.fromhex(entry.sha256)) == 32
            assert entry.urls or entry.note
            for url in entry.urls:  # https, and a commit rather than a branch that moves
                commit = url.removeprefix("https://raw.githubusercontent.com/").split("/")[2]
                assert url.startswith("https://") and len(commit) >= 7 and int(commit, 16)


def test_folder_is_taken_first_and_gzip_counts_as_its_content(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, name="points.csv.gz")
    (tmp_path / "made-up").mkdir()
    path = tmp_path / "made-up" / "points.csv.gz"
    path.write_bytes(gzip.compress(TEXT))
    monkeypatch.setenv("HYBRIDALLOC_DATA", str(tmp_path))
    assert data.fetch("made-up", "points.csv.gz") == path
    assert data.fetch("made-up", "points.csv") == path
    assert data.open_text(path).read().encode() == TEXT
    np.testing.assert_array_equal(data.read_positions(path, "Latitude", "Longitude"), [[-37.8, 144.9]])


def test_altered_file_in_the_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch)
    (tmp_path / "made-up").mkdir()
    path = tmp_path / "made-up" / "points.csv"
    path.write_bytes(TEXT + b" ")
    monkeypatch.setenv("HYBRIDALLOC_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"points\.csv: SHA-256 of its content is \w{64}, required is") as raised:
        data.fetch("made-up", "points.csv")
    assert hashlib.sha256(TEXT + b" ").hexdigest() in str(raised.value)
    report, right = data.verify_all(["made-up"])
    assert report == f"made-up/points.csv: altered ({path})" and not right


def test_download_fills_the_cache_once(
    monkeypatch: pytest.MonkeyPatch, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = server
    register(monkeypatch, f"{address}/right")
    assert data.verify_all() == ("made-up/points.csv: missing", False)
    path = data.fetch("made-up", "points.csv")
    assert path.read_bytes() == TEXT and path.is_relative_to(tmp_path / "cache")
    assert data.fetch_all(["made-up"]) == f"made-up/points.csv: {path}"
    assert asked == ["/right"]
    assert data.verify_all() == (f"made-up/points.csv: ok ({path})", True)


def test_next_address_is_tried_after_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, server: tuple[str, list[str]]
) -> None:
    address, asked = server
    register(monkeypatch, f"{address}/none", f"{address}/wrong", f"{address}/right")
    assert data.fetch("made-up", "points.csv").read_bytes() == TEXT
    assert asked == ["/none", "/wrong", "/right"]


def test_wrong_answers_alone_are_refused(monkeypatch: pytest.MonkeyPatch, server: tuple[str, list[str]]) -> None:
    register(monkeypatch, f"{server[0]}/none", f"{server[0]}/wrong")
    with pytest.raises(DataError, match=r"/none: 404 Client Error.*/wrong: SHA256 hash of downloaded file"):
        data.fetch("made-up", "points.csv")


def test_without_folder_and_network_the_cure_is_named_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    eua = next(dataset for dataset in data.datasets() if dataset.name == "eua")
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # bound but not listening: a connection is refused
    address = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
    files = tuple(replace(entry, urls=(address, address + "/b")) for entry in eua.files)
    monkeypatch.setattr(data, "DATASETS", (replace(eua, files=files),))
    start = time.monotonic()
    with pytest.raises(DataError) as raised:
        data.eua_sites()
    assert time.monotonic() - start < 5
    closed.close()
    message = str(raised.value)
    assert "HYBRIDALLOC_DATA is not set" in message and f"{address}: no connection" in message
    assert message.endswith(
        "To go on, set HYBRIDALLOC_DATA to a folder that holds eua/site-optus-melbCBD.csv, or run "
        "`hybridalloc data fetch eua` with a network, or pass `--sites synthetic`."
    )
    assert "/a/b" not in message  # one dead host is not asked twice


def test_silent_server_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "TIMEOUT_S", (0.2, 0.2))
    silent = socket.create_server(("127.0.0.1", 0))  # accepts and never answers
    register(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/a")
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no connection \(ReadTimeout\)"):
        data.fetch("made-up", "points.csv")
    assert time.monotonic() - start < 3
    silent.close()


def test_derived_table_without_folder_says_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, note="made from x.csv")
    with pytest.raises(DataError, match=r"made from x\.csv\. To go on, set HYBRIDALLOC_DATA"):
        data.fetch("made-up", "points.csv")


def test_names_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'euo'; did you mean 'eua'"):
        data.fetch("euo", "x")
    with pytest.raises(UnknownNameError, match=r"unknown file of eua 'x'\. Known: site-optus-melbCBD\.csv, users-"):
        data.fetch("eua", "x")
    monkeypatch.setenv("HYBRIDALLOC_DATA", "/no/such/place")
    with pytest.raises(DataError, match="HYBRIDALLOC_DATA = /no/such/place: no such folder"):
        data.fetch("eua", "users-melbcbd-generated.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Lat,Longitude\n1,2\n", "line 1: column Latitude is missing; the columns are Lat, Longitude"),
        ("", "line 1: column Latitude is missing; the columns are none"),
        ("Latitude,Longitude\n1,2\n1,east\n", "line 3, column Longitude: 'east' is not a number"),
        ("Latitude,Longitude\n1,2\n\n1\n", "line 4, column Longitude: '' is not a number"),
        ("Latitude,Longitude\n-90.5,2\n", r"line 2, column Latitude: -90.5 is outside \[-90, 90\]"),
        ("Latitude,Longitude\n1,nan\n", r"line 2, column Longitude: nan is outside \[-180, 180\]"),
        ("Latitude,Longitude\n", "no position below the header"),
    ],
)
def test_malformed_positions_name_file_line_and_column(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"bad\.csv.*" + message):
        data.read_positions(path, "Latitude", "Longitude")


def test_tangent_plane_agrees_with_great_circles() -> None:
    """Distances over 3 km agree with the haversine formula to 0.1 %."""
    rng = np.random.default_rng(0)
    degrees = np.array([-37.8136, 144.9631]) + rng.uniform(-0.015, 0.015, (50, 2))
    metres = data.tangent_plane(degrees, degrees.mean(axis=0))
    np.testing.assert_allclose(metres.mean(axis=0), 0.0, atol=1e-6)
    for a, b, p, q in zip(degrees, np.roll(degrees, 1, 0), metres, np.roll(metres, 1, 0), strict=True):
        (la, oa), (lb, ob) = np.radians(a), np.radians(b)
        half = math.sin((lb - la) / 2) ** 2 + math.cos(la) * math.cos(lb) * math.sin((ob - oa) / 2) ** 2
        great_circle = 2 * 6_371_008.8 * math.asin(math.sqrt(half))
        assert math.hypot(*(p - q)) == pytest.approx(great_circle, rel=1e-3)
    north = data.tangent_plane(np.array([[-37.0, 144.0]]), np.array([-37.01, 144.0]))
    assert north[0, 1] == pytest.approx(1111.95, abs=0.01) and north[0, 0] == 0


@pytest.mark.skipif(not REAL_DATA, reason="needs the folder of real data")
def test_real_sites_of_melbourne(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDALLOC_DATA", REAL_DATA)
    report, right = data.verify_all()
    assert right, report
    sites, users = data.eua_sites()
    assert sites.shape == (125, 2) and users.shape == (816, 2)
    # the published area is 1.8 km2 around the centre: all within 2 km, sites spread over more than 1 km
    assert np.abs(np.concatenate([sites, users])).max() < 2000 and sites.std(axis=0).min() > 200


def test_digest_changes_with_content_only(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    plain = data.digest("made-up")
    register(monkeypatch, "http://elsewhere", name="points.csv.gz")
    assert data.digest("made-up") == plain and len(plain) == 64
    entry = replace(data.datasets()[0].files[0], sha256="0" * 64)
    monkeypatch.setattr(data, "DATASETS", (replace(data.datasets()[0], files=(entry,)),))
    assert data.digest("made-up") != plain


def test_list_table_has_what_a_user_must_know() -> None:
    table = data.list_table()
    for dataset in data.datasets():
        for text in (dataset.name, dataset.licence, dataset.citation, *(f.name for f in dataset.files)):
            assert text in table
    assert "not here yet" in table and "taken from HYBRIDALLOC_DATA only" in table
