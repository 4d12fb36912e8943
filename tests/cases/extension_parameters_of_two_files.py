"""Periods of months in one file and of days in the next are refused, with both named; those of one kind are kept

Reports: aws/aws-sdk-pandas#675. Source: Arrow, Columnar.rst, "Extension Types": the metadata is a part of the type.
"""

import pyarrow.parquet as pq
from case import ROOT, check, double, end, runner, score, written_by

written_by(
    """
    import os
    import pandas as pd
    for name, freqs in {"both": "MD", "one": "MM"}.items():
        os.mkdir(name)
        for at, freq in enumerate(freqs):
            frame = pd.DataFrame({"x": [1.0, 2.0], "when": pd.period_range("2024-01", periods=2, freq=freq)})
            frame.astype({"x": "float32"}).to_parquet(f"{name}/{at}.parquet")
    """
)
model = double()
plan = runner("plan", "--model", model, "--input", ROOT / "both", "--output", ROOT / "out", "--keep", "when")
told = ["COLUMN_TYPE", "'when'", 'int64 as pandas.period {"freq": "M"}', 'int64 as pandas.period {"freq": "D"}']
check(plan.code == 2 and all(words in plan.told for words in told), "two kinds of periods", plan)
done = score(model, ROOT / "one", "--keep", "when")
check(done.table is not None, "periods of months were not kept", done)
for part in (ROOT / "out").glob("part-*.parquet"):
    said = str(pq.read_schema(part).field("when")) + str(pq.read_schema(part).field("when").metadata)
    check("pandas.period" in said and "int64" in said and '"M"' in said, f"kept as {said}")
end()
