"""Traces of requests to language models: when they came, prompt and generated tokens, blocks of their prefixes.

A trace is checked line by line: time never runs backwards, nobody asks for nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridalloc.data.registry import DataError, fetch, open_text

Float = NDArray[np.float64]
Int = NDArray[np.int64]
TICK_S = 3.0  # of Mooncake's arrivals
LONGEST = 10_000_000  # tokens: more is a mistake
TRACES = ("azure", "mooncake")
DATASET = {"azure": "azure_llm", "mooncake": "mooncake"}


class Requests(NamedTuple):
    """Q requests in order of arrival.

    Attributes:
        at: (Q,) s since the first. prompt, output: (Q,) tokens. first: (Q + 1,); block: the hashes of request i's
            prompt, block by block of 512 tokens, are ``block[first[i] : first[i + 1]]``; none where a trace has no
            hashes.
    """

    at: Float
    prompt: Int
    output: Int
    first: Int
    block: Int


def azure(path: Path | None = None) -> Requests:
    """19,366 requests to a conversation model in 58 minutes (Patel et al. 2024), without prefixes.

    Args:
        path: another file of the same columns, TIMESTAMP, ContextTokens and GeneratedTokens.

    Raises:
        DataError: no data, or a line that cannot be: names file, line, column, value and what it must be.
    """
    path = fetch("azure_llm", "AzureLLMInferenceTrace_conv.csv") if path is None else path
    at: list[float] = []
    tokens: list[list[int]] = []
    for where, row in _rows(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        try:
            at.append(int(np.datetime64(row[0].strip().replace(" ", "T"), "ns").astype(np.int64)))
        except ValueError:
            example = "2023-11-16 18:15:46.68"
            raise DataError(f"{where}, column TIMESTAMP: {row[0]!r} is no time such as {example}") from None
        names = ("ContextTokens", "GeneratedTokens")
        tokens.append([_tokens(text, f"{where}, column {name}") for text, name in zip(row[1:], names, strict=True)])
        _forwards(at, where, "TIMESTAMP", row[0])
    _some(path, at)
    time, many = (np.array(at) - at[0]) / 1e9, np.array(tokens)
    return Requests(time, many[:, 0], many[:, 1], np.zeros(len(at) + 1, np.int64), np.zeros(0, np.int64))


def mooncake(seed: int = 0, path: Path | None = None) -> Requests:
    """12,031 requests in 59 minutes with the hashes of their prefixes (Qin et al. 2025).

    Arrivals are recorded on ticks of 3 s; within a tick they are spread evenly at random, as a burst of a tick's
    requests is the record's and nobody's traffic.

    Raises:
        DataError: as :func:`azure` does.
    """
    path = fetch("mooncake", "conversation_trace.jsonl.gz") if path is None else path
    at: list[float] = []
    tokens: list[list[int]] = []
    hashes: list[list[int]] = []
    with open_text(path) as stream:
        for k, line in enumerate(stream):
            if not line.strip():
                continue
            where = f"{path}, line {k + 1}"
            try:
                row = json.loads(line)
                time, blocks = float(row["timestamp"]) / 1e3, [int(b) for b in row["hash_ids"]]
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"{where}: not a JSON object with timestamp, input_length, output_length, hash_ids "
                    f"({type(error).__name__}: {error})"
                ) from None
            at.append(time)
            names = ("input_length", "output_length")
            tokens.append([_tokens(row.get(name), f"{where}, {name}") for name in names])
            _forwards(at, where, "timestamp", row["timestamp"])
            hashes.append(blocks)
    _some(path, at)
    tick = np.round(np.array(at) / TICK_S) * TICK_S
    time = tick - tick[0] + TICK_S * np.random.default_rng([seed, 3]).random(len(at))
    order = np.argsort(time, kind="stable")
    many = np.array(tokens)[order]
    first = np.concatenate([[0], np.cumsum([len(hashes[i]) for i in order])])
    block = np.concatenate([np.array(hashes[i], np.int64) for i in order])
    return Requests(time[order] - time[order[0]], many[:, 0], many[:, 1], first, block)


def synthetic(seed: int = 0, count: int = 4000, gap_s: float = 0.1) -> Requests:
    """Requests that nobody recorded: bursts that come and go, prompts and outputs of log-normal length, three in four
    of them behind one of fifty system prompts of 1 to 4 blocks, some asked for much more often than others."""
    rng = np.random.default_rng([seed, 17])
    busy = np.repeat(rng.random(count // 50 + 1) < 0.35, 50)[:count]
    at = np.cumsum(rng.exponential(gap_s, count) * np.where(busy, 0.6, 1.25))
    prompt = np.clip(np.round(rng.lognormal(6.5, 0.9, count)), 8, 16_000).astype(np.int64)
    output = np.clip(np.round(rng.lognormal(4.8, 0.8, count)), 2, 2000).astype(np.int64)
    share = 1.0 / np.arange(1, 51)
    system = rng.choice(50, count, p=share / share.sum())
    blocks = np.where(rng.random(count) < 0.75, 1 + system % 4, 0)
    prompt = prompt + 512 * blocks
    first = np.concatenate([[0], np.cumsum(blocks)])
    block = np.concatenate([4 * system[i] + np.arange(blocks[i]) for i in range(count)])
    return Requests(at - at[0], prompt, output, first, block.astype(np.int64))


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Where each row stands, and its cells of the named columns."""
    with open_text(path) as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        for column in columns:
            if column not in header:
                raise DataError(
                    f"{path}, line 1: column {column} is missing; the columns are {', '.join(header) or 'none'}"
                )
        index = [header.index(column) for column in columns]
        for row in reader:
            if row:
                where = f"{path}, line {reader.line_num}"
                for k, column in zip(index, columns, strict=True):
                    if k >= len(row):
                        raise DataError(f"{where}: column {column} is missing; the line has {len(row)} cells")
                yield where, [row[k] for k in index]


def _tokens(value: object, where: str) -> int:
    try:
        count = int(str(value))
    except ValueError:
        raise DataError(f"{where}: {str(value)[:40]!r} is no whole number of tokens") from None
    if not 1 <= count <= LONGEST:
        raise DataError(f"{where}: {count} tokens; a request has 1 to {LONGEST:,}")
    return count


def _forwards(at: list[float], where: str, name: str, text: object) -> None:
    if len(at) > 1 and at[-1] < at[-2]:
        raise DataError(f"{where}, {name}: {text} is before the line above; sort the trace by time")


def _some(path: Path, at: list[float]) -> None:
    if not at:
        raise DataError(f"{path}: no request below the header; at least one is required")
