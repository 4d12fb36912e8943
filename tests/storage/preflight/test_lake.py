"""Tables of a lake on each kind of store."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import InputError
from runner.preflight.input.lake import refuse_table


@pytest.mark.parametrize("mark", ["_delta_log/0.json", ".hoodie/hoodie.properties", "metadata/v1.metadata.json"])
def test_a_folder_or_a_partition_of_a_table_is_refused_and_a_file_of_it_is_warned_of(place: Any, mark: str) -> None:
    place.put("t/data/year=1/a.parquet", b"1")
    place.put(f"t/{mark}", b"{}")
    place.put("other/a.parquet", b"1")
    store = place.store()

    def looked(url: str) -> list[str]:
        return refuse_table(store, store.list([f"{place.url}/{url}"], (".parquet",)))

    for url in ("t", "t/data", "t/data/year=1", "t/data/*/*.parquet", "**/*.parquet"):
        with pytest.raises(InputError, match=r"/t' as a folder: it is an? ") as error:
            looked(url)
        assert error.value.facts["code"] == "INPUT_TABLE"
    (warning,) = looked("t/data/year=1/a.parquet")
    assert "/t' is a" in warning
    assert looked("other") == looked("other/a.parquet") == []
