"""The style sheet of the page of a run: light and dark, wide and narrow. Owns colours and sizes, and no words."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--ground:#fbfbfa;--card:#fff;--ink:#1c2024;--soft:#667079;--line:#e3e6e8;--accent:#2f6fbb;
--good:#2f8f5b;--warn:#b7791f;--bad:#c0392b;--run:#2f6fbb;--feed:#5aa9c9;--fetch:#8cc7d8;--wait:#e0a33a;--write:#cf6a3d;
--idle:#b9c0c6;--start:#8d7cc3;--load:#b3a6dc}
@media (prefers-color-scheme:dark){:root{--ground:#14171a;--card:#1c2024;--ink:#e7eaec;--soft:#98a2ab;--line:#2e343a;
--accent:#4b83c4;--good:#3f9a6a;--warn:#b98a35;--bad:#d05a4b;--run:#4b83c4;--feed:#3f7f99;--fetch:#5c97a4;--wait:#b98a35;
--write:#b76a43;--idle:#59636c;--start:#7263a8;--load:#574d80}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:22px;margin:0 0 2px;letter-spacing:-.01em;overflow-wrap:anywhere}h2{font-size:15px;margin:0 0 10px}
p{margin:0}a{color:var(--accent)}.soft,.axis,.lane{color:var(--soft);fill:var(--soft)}
.note{color:var(--soft);font-size:13px;margin-top:8px}
.mono{font:13px/1.5 ui-monospace,Menlo,monospace;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin-top:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin-top:16px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px;min-width:0}
.tile b{display:block;font-size:19px;line-height:28px;font-weight:600;font-variant-numeric:tabular-nums;
overflow-wrap:anywhere}
.tile b.long{font-size:15px}.tile span{color:var(--soft);font-size:13px}
.call{border-left:4px solid var(--accent)}.call p+p{margin-top:4px;color:var(--soft)}
.ended{display:inline-block;padding:1px 10px;border-radius:99px;font-size:13px;color:#fff;background:var(--good);
letter-spacing:0;white-space:nowrap;vertical-align:2px}
.ended.not{background:var(--bad)}
.chart{overflow-x:auto}.chart svg{min-width:700px}
svg{display:block;width:100%;height:auto}svg text{font-size:12px;font-family:inherit}
svg .number{font-size:10.5px;fill:var(--soft)}
.in{fill:var(--ink);stroke:var(--card);stroke-width:3px;stroke-opacity:.75;paint-order:stroke;stroke-linejoin:round}
.p-work+.in,.p-ray+.in{fill:#fff;stroke:#000;stroke-opacity:.3}
.over{stroke:var(--card);stroke-width:4px;stroke-opacity:.85;paint-order:stroke;stroke-linejoin:round}
.grid{stroke:var(--line)}.mark{stroke:var(--soft);stroke-dasharray:5 4}.area{fill:var(--accent);opacity:.75}
.published,.p-work{fill:var(--accent)}.retried{fill:var(--warn)}.failed,.lost{fill:var(--bad)}.adopted{fill:var(--idle)}
.tail{opacity:.4}.p-plan{fill:var(--feed)}.p-ray{fill:var(--start)}.p-load{fill:var(--load)}.p-finish{fill:var(--fetch)}
.p-stop{fill:var(--idle)}
.s-run{fill:var(--run)}.s-compile{fill:var(--start)}.s-pictures{fill:var(--load)}.s-feed{fill:var(--feed)}.s-fetch{fill:var(--fetch)}.s-wait_read{fill:var(--wait)}
.s-wait_write{fill:var(--write)}.s-idle{fill:var(--idle)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;margin-top:8px;font-size:13px;color:var(--soft)}
.legend svg{display:inline-block;width:11px;height:11px;margin-right:6px;vertical-align:-1px}
.scroll{overflow-x:auto;margin-top:10px}table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--soft);font-weight:500}td.n,th.n{text-align:right;white-space:nowrap}
th,td{padding:5px 10px;border-bottom:1px solid var(--line);vertical-align:top}tr:last-child td{border-bottom:0}
td:last-child:not(.n){min-width:180px}
@media (max-width:560px){main{padding:20px 14px 40px}section{padding:14px}th,td{padding:5px 6px}th.n{white-space:normal}
td:last-child:not(.n){min-width:110px}}
"""
