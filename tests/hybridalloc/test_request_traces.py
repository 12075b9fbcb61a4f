"""Traces of requests: what is read, and what is refused with its line."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from hybridalloc.data import requests
from hybridalloc.data.registry import DataError

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROW = "2023-11-16 18:15:46.6805900,374,44\n"


def azure(tmp_path, *lines):
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + "".join(lines))
    return requests.azure(path)


def mooncake(tmp_path, *rows, seed=0):
    path = tmp_path / "trace.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return requests.mooncake(seed, path)


def turn(ms, prompt=600, output=20, blocks=(1, 2)):
    return {"timestamp": ms, "input_length": prompt, "output_length": output, "hash_ids": list(blocks)}


def test_azure_is_read_to_the_tenth_of_a_microsecond(tmp_path):
    q = azure(tmp_path, ROW, "2023-11-16 18:15:50.9951691,396,109\n")
    assert q.at.tolist() == [0.0, pytest.approx(4.3145791, abs=1e-9)]
    assert q.prompt.tolist() == [374, 396] and q.output.tolist() == [44, 109] and not q.first.any()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2023-11-16 18:15:40.0,10,10\n", "line 3, TIMESTAMP: 2023-11-16 18:15:40.0 is before the line above"),
        ("2023-11-16 18:15:50.0,0,10\n", "line 3, column ContextTokens: 0 tokens; a request has 1 to"),
        ("2023-11-16 18:15:50.0,10,-1\n", "line 3, column GeneratedTokens: -1 tokens"),
        ("2023-11-16 18:15:50.0,10,many\n", "column GeneratedTokens: 'many' is no whole number of tokens"),
        ("2023-11-16 18:15:50.0,10\n", "line 3: column GeneratedTokens is missing; the line has 2 cells"),
        ("yesterday,10,10\n", "column TIMESTAMP: 'yesterday' is no time such as"),
    ],
)
def test_a_line_that_cannot_be_is_named(tmp_path, line, words):
    with pytest.raises(DataError, match=words.replace("(", r"\(")):
        azure(tmp_path, ROW, line)


def test_a_trace_without_a_column_or_a_request_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least one is required"):
        azure(tmp_path)
    path = tmp_path / "other.csv"
    path.write_text("TIMESTAMP,ContextTokens\n")
    with pytest.raises(DataError, match="column GeneratedTokens is missing; the columns are TIMESTAMP, ContextTokens"):
        requests.azure(path)


def test_mooncakes_ticks_are_spread_and_prefixes_stay_with_their_requests(tmp_path):
    rows = [turn(3000 * (k // 20), prompt=600 + k, blocks=[k, k + 1]) for k in range(60)]
    q = mooncake(tmp_path, *rows)
    assert (np.diff(q.at) >= 0).all() and len(np.unique(q.at)) == 60 and q.at[-1] < 9.0
    for i in range(60):
        k = q.prompt[i] - 600
        assert q.block[q.first[i] : q.first[i + 1]].tolist() == [k, k + 1]
    again, other = mooncake(tmp_path, *rows), mooncake(tmp_path, *rows, seed=1)
    assert (again.at == q.at).all() and (other.at != q.at).any()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (turn(-3000), "line 2, timestamp: -3000 is before the line above"),
        (turn(3000, prompt=0), "line 2, input_length: 0 tokens"),
        ({"timestamp": 3000, "input_length": 5, "hash_ids": []}, "line 2, output_length: 'None' is no whole number"),
        ({"timestamp": 3000, "input_length": 5, "output_length": 5}, "line 2: not a JSON object with timestamp"),
        ("{", "line 2: not a JSON object with timestamp"),
    ],
)
def test_a_bad_object_is_named(tmp_path, row, words):
    with pytest.raises(DataError, match=words):
        mooncake(tmp_path, turn(0), row)


def test_the_synthetic_trace_is_seeded_and_shares_prefixes():
    q, again, other = (requests.synthetic(seed, 500) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(q, again, strict=True)) and (other.at != q.at).any()
    assert (np.diff(q.at) > 0).all() and q.prompt.min() >= 8 and q.output.min() >= 2
    assert (q.prompt >= 512 * np.diff(q.first) + 8).all() and len(np.unique(q.block)) < len(q.block) / 3
