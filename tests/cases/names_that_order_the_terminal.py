"""Names of files, columns and ops that hold orders to a terminal are shown, and not obeyed"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from case import ROOT, check, double, end, runner, score

ORDER = "\x1b[2J\u202e\nerror: all is lost"
model = double()
folder = ROOT / "in"
folder.mkdir()
pq.write_table(pa.table({f"x{ORDER}": np.zeros(3, "f4")}), folder / "a.parquet")
told = [score(model, folder, "--map", f"x=x{ORDER}!"), score(model, folder), runner("show", ROOT / f"m{ORDER}")]
(folder / f"b{ORDER}.parquet").write_bytes(b"no file of ours")
told += [score(model, folder), runner("status", f"{folder}{ORDER}")]
for done in told:
    harmless = not {"\x1b", "\u202e"} & set(done.told) and "\nerror" not in done.told
    check(harmless, f"the terminal was given orders: {done.told!r}")
    check("\\x1b[2J" in done.told, "the name is not shown as it is", done)
check([done.code for done in told] == [2, 2, 2, 2, 0], f"exit codes {[done.code for done in told]}")
end()
