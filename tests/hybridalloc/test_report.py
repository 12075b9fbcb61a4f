"""The report and the tables, on made-up numbers."""

from __future__ import annotations

import copy
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridalloc import figures
from hybridalloc.report import markdown_table, text_table, write_report
from hybridalloc.statistics import paired_difference
from hybridalloc.summary import number, places, summarise


def made_up() -> dict[str, Any]:
    """A comparison with the demo's methods and metrics whose every number is invented."""
    rng = np.random.default_rng(0)
    seeds, evaluations = 3, 20
    names = [
        ("hybrid-imappo", "Hybrid, IMAPPO", "hybrid", 0.862),
        ("hybrid-dqn", "Hybrid, DQN", "hybrid", 0.848),
        ("hybrid-untrained", "Hybrid, untrained", "hybrid", 0.815),
        ("imappo", "IMAPPO alone", "rl", 0.742),
        ("dqn", "DQN alone", "rl", 0.713),
        ("game-0", "Game, toll 0", "game", 0.781),
        ("game-1", "Game, toll 1", "game", 0.812),
        ("game-tuned", "Game, tuned toll and prices", "game", 0.829),
        ("local", "Local only", "heuristic", 0.39),
        ("nearest", "Nearest server", "heuristic", 0.44),
        ("random", "Random", "heuristic", 0.31),
        ("greedy", "Greedy", "heuristic", 0.702),
    ]
    metrics = [
        ("welfare", "Welfare", "per agent-slot", "higher", 1.0, 0.0),
        ("completion", "Completion", "share of tasks", "higher", 0.3, 0.66),
        ("latency", "Latency", "ms", "lower", -30.0, 56.0),
        ("tasks_per_joule", "Tasks per joule", "1/J", "higher", 9.0, 1.0),
        ("aoi", "Age of information", "ms", "lower", -250.0, 380.0),
        ("outage", "Outage", "share", "lower", -0.2, 0.21),
        ("jain", "Jain's index", "", "higher", 0.4, 0.6),
        ("raw_violations", "Raw violations", "share", "lower", -0.5, 0.5),
        ("violations", "Executed violations", "count", "lower", 0.0, 0.0),
        ("step_ms", "Step time", "ms", "lower", 0.9, 0.3),
    ]
    common = rng.normal(size=evaluations) * 0.01
    methods = []
    for key, label, kind, level in names:
        count = seeds if key in ("hybrid-imappo", "hybrid-dqn", "imappo", "dqn") else 1
        base = (
            level
            + common
            + rng.normal(size=(count, 1)) * 0.004
            + rng.normal(size=(count, evaluations)) * 0.006
        )
        values = {m: slope * base + start for m, _, _, _, slope, start in metrics if m != "raw_violations"}
        if kind in ("hybrid", "rl"):
            values["raw_violations"] = np.clip(0.5 - 0.5 * base, 0, 1)
        methods.append({"key": key, "label": label, "kind": kind, "values": values})
    by_key = {method["key"]: method["values"]["welfare"] for method in methods}
    steps = np.linspace(0, 300_000, 41)
    curves = []
    for key, start, tau in (
        ("hybrid-imappo", 0.815, 6e4),
        ("hybrid-dqn", 0.815, 9e4),
        ("imappo", 0.36, 7e4),
        ("dqn", 0.33, 8e4),
    ):
        end = float(by_key[key].mean())
        mean = end + (start - end) * np.exp(-steps / tau)
        curves.append({"method": key, "steps": steps, "values": mean + rng.normal(size=(seeds, 41)) * 0.008})
    differences = []
    for key, label in (
        ("imappo", "IMAPPO alone"),
        ("hybrid-untrained", "untrained hybrid"),
        ("game-tuned", "tuned game"),
    ):
        d = paired_difference(by_key["hybrid-imappo"], by_key[key])
        differences.append(
            {
                "label": f"Hybrid, IMAPPO − {label}",
                "metric": "welfare",
                "mean": d.mean,
                "low": d.low,
                "high": d.high,
                "conservative": d.conservative,
            }
        )
    d = paired_difference(by_key["hybrid-dqn"], by_key["hybrid-imappo"] - 0.015)
    differences.append(
        {
            "label": "Hybrid, DQN − a shifted twin",
            "metric": "welfare",
            "mean": d.mean,
            "low": d.low,
            "high": d.high,
        }
    )
    stations, devices = rng.uniform(-480, 480, (9, 2)), rng.uniform(-500, 500, (50, 2))
    nearest = 1 + np.argmin(((devices[:, None] - stations) ** 2).sum(-1), axis=1)
    return {
        "title": "Hybrid against pure RL on an edge network (made-up numbers)",
        "note": "Every number on this page is invented, to test the page.",
        "problem": "mec",
        "scenario": {
            "name": "H",
            "agents": 50,
            "servers": 9,
            "sites": "eua",
            "interference": True,
            "slot_ms": 100,
        },
        "budget": {"agent_steps": 300_000},
        "git_commit": "6c64b04b2847645c234358f67f63540948d1d99d",
        "data_digest": "ab" * 32,
        "seeds": {"train": [0, 1, 2], "tune": [5000, 5001], "report": list(range(10000, 10020))},
        "metrics": [
            {"key": k, "label": label, "unit": unit, "better": better}
            for k, label, unit, better, _, _ in metrics
        ],
        "methods": methods,
        "curves": curves,
        "levels": [
            {"label": label, "value": float(by_key[key].mean())}
            for key, label, _, _ in names
            if key in ("hybrid-untrained", "game-0", "game-1", "game-tuned", "greedy")
        ],
        "differences": differences,
        "map": {
            "stations": stations,
            "devices": devices,
            "option": np.where(rng.random(50) < 0.2, 0, nearest),
            "active": rng.random(50) < 0.85,
            "label": "Slot 40 of evaluation seed 10000, hybrid with IMAPPO",
        },
    }
