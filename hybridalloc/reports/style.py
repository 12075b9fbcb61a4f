"""The report's style sheet: light, dark (by the reader's setting) and phone width."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --back:#ffffff; --panel:#f5f7fa; --text:#1b2330; --soft:#566070; --rule:#c9d0da; --grid:#e6eaf0;
  --good:#0b6b3a; --bad:#b42318; --mark:#1d4ed8;
  --hybrid-0:#1d4ed8; --hybrid-1:#7c3aed; --hybrid-2:#0e7490; --hybrid-3:#4f46e5;
  --rl-0:#d9480f; --rl-1:#be185d; --rl-2:#a16207; --rl-3:#9f1239;
  --game-0:#2f9e63; --game-1:#5c8a1a; --game-2:#0f766e; --game-3:#86a833; --game-4:#3f7d58;
  --heuristic-0:#6b7280; --heuristic-1:#94a0b0; --heuristic-2:#857a70; --heuristic-3:#a8a29e;
  --heuristic-4:#7d8ba0;
  --place-0:#1d4ed8; --place-1:#d9480f; --place-2:#2b8a3e; --place-3:#9c36b5; --place-4:#0c8599;
  --place-5:#c2255c; --place-6:#7a5c00; --place-7:#495057; --place-8:#5f3dc4; }
@media (prefers-color-scheme: dark) { :root {
  --back:#12161d; --panel:#1b212b; --text:#e4e8ef; --soft:#a0aabb; --rule:#465062; --grid:#2a3240;
  --good:#5fd699; --bad:#ff8f7d; --mark:#8fb2ff;
  --hybrid-0:#7ea6ff; --hybrid-1:#c09bff; --hybrid-2:#4fd0e6; --hybrid-3:#a5a8ff;
  --rl-0:#ff9457; --rl-1:#ff7fb5; --rl-2:#e9bd3d; --rl-3:#ff8ea1;
  --game-0:#54d394; --game-1:#a8d34e; --game-2:#45cdbb; --game-3:#c3dd7a; --game-4:#86c9a3;
  --heuristic-0:#9aa4b5; --heuristic-1:#76839a; --heuristic-2:#b0a599; --heuristic-3:#8a857f;
  --heuristic-4:#8b9cb5;
  --place-0:#7ea6ff; --place-1:#ff9457; --place-2:#69db7c; --place-3:#e29bf5; --place-4:#4fd0e6;
  --place-5:#ff85ad; --place-6:#e0c04c; --place-7:#b4bcc8; --place-8:#b3a0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 20px 48px; max-width: 1260px; background: var(--back); color:
  var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid var(--grid); }
h3 { font-size: .95rem; margin: 0 0 6px; }
p { margin: 0 0 12px; max-width: 76ch; }
.lead, .note, figcaption { color: var(--soft); }
figcaption, .note { font-size: .86rem; max-width: 76ch; margin: 8px 0 0; }
figure { margin: 0 0 16px; min-width: 0; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px 20px; margin:
  16px 0;
  padding: 14px 16px; background: var(--panel); border-radius: 8px; }
dt { font-size: .78rem; color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.two { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 12px 36px; align-items:
  start; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 24px 32px; }
.scroll { overflow-x: auto; margin: 0 0 8px; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; vertical-align: top; border-bottom: 1px solid var(--grid);
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; border-bottom-color: var(--rule); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
tbody th { font-weight: 500; white-space: normal; min-width: 108px; }
thead th { white-space: normal; }
.main thead th:not(:first-child) { min-width: 80px; }
.main { font-size: .79rem; } .main td, .main th { padding: 5px 4px; }
.main th:first-child { position: sticky; left: 0; background: var(--back); }
.range { display: block; color: var(--soft); font-size: .78rem; } .main .range { font-size: .72rem; }
.patch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.best { font-weight: 700; }
.range.good { color: var(--good); font-weight: 600; } .range.bad { color: var(--bad); font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 8px; padding: 0; list-style: none;
  font-size: .86rem; }
.legend b { font-weight: 600; color: var(--soft); }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg.swatch { display: inline-block; width: 30px; height: 10px; margin-right: 5px; }
svg text { fill: var(--text); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
  sans-serif;
  font-variant-numeric: tabular-nums; }
svg .tick, svg .axis { fill: var(--soft); } svg .tick { font-size: 11px; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .bar-value { font-weight: 600; }
svg .halo { paint-order: stroke; stroke: var(--back); stroke-width: 4px; stroke-linejoin: round; }
.grid { stroke: var(--grid); } .rule { stroke: var(--rule); } .heavy { stroke: var(--soft); stroke-width: 2; }
.track { stroke: var(--grid); stroke-width: 10; }
.level { stroke: var(--soft); stroke-dasharray: 1 4; stroke-width: 1.4; stroke-linecap: round; }
.curve { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.band { opacity: .16; }
.whisker { stroke: var(--text); stroke-width: 1.3; } .whisker.wide { stroke: var(--mark); stroke-width: 3.4; }
.whisker.thin { stroke: var(--mark); stroke-width: 1.2; }
.dot { fill: var(--mark); }
.tie { stroke-width: 1; opacity: .5; }
.device { stroke: var(--back); stroke-width: 1; }
.device.out { fill: none; stroke: var(--soft); stroke-width: 1.6; } .device.idle { fill: var(--rule);
  stroke: none; }
.station { stroke: var(--back); stroke-width: 1.5; }
svg .station-number { fill: var(--back); font-size: 11px; font-weight: 700; }
svg + h3 { margin-top: 18px; }
.verdict { margin: 6px 0 12px; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); }
.verdict b { display: block; font-size: 1.45rem; line-height: 1.2; font-weight: 650; }
.verdict b.first { color: var(--mark); } .verdict span { color: var(--soft); font-size: .82rem; }
.told { margin: 0; padding-left: 1.1em; } .told li { margin: 0 0 6px; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); font-size: .86rem; }
.phone { display: none; }
@media (max-width: 760px) {
  body { padding: 16px 14px 40px; font-size: 14.5px; }
  .two { grid-template-columns: minmax(0, 1fr); }
  th, td { padding: 5px 7px; }
  .desk { display: none; } .phone { display: block; }
  dl { grid-template-columns: repeat(2, minmax(0, 1fr)); padding: 12px; gap: 8px 14px; }
  h1 { font-size: 1.3rem; }
}
"""
