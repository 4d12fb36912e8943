"""The commands that look at a model or call it by hand: `scan` and `call`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.errors import ModelError
from runner.cli.cache import model_of
from runner.cli.options import AsJson
from runner.cli.terminal import console, print_json

ModelFolder = Annotated[str, typer.Argument(help="SavedModel folder, or a folder of version folders.")]
Version = Annotated[int | None, typer.Option(help="Version folder; the newest if omitted.")]


def scan(model: ModelFolder, version: Version = None, as_json: AsJson = False) -> None:
    """Look for ops that touch files, the network or Python. Exit 2 if `run` would refuse the model. Loads nothing."""
    import dataclasses

    from rich.text import Text

    from runner.cli.view.model import printable
    from runner.scan.program import read_programs
    from runner.scan.trust import scan as findings

    spec = model_of(model, version)
    found = findings(read_programs(spec))
    if as_json:
        print_json({"url": spec.url, "digest": spec.digest, "refused": [dataclasses.asdict(each) for each in found]})
    else:
        count = sum(sum(metagraph.ops.values()) for metagraph in spec.metagraphs)
        head = f"{len(found):,} of {count:,} nodes may do more than compute" if found else f"harmless: {count:,} nodes"
        console().print(Text(f"{printable(spec.url)}: {head}", style="bold red" if found else "bold green"))
        for each in found:
            console().print(Text(f"  {printable(str(each))}"), soft_wrap=True)
    if found:
        raise typer.Exit(ModelError.exit_code)


def call(
    model: ModelFolder,
    inputs: Annotated[
        list[str] | None, typer.Option(metavar="KEY=FILE", help="A .npy file, file.npz[name], or a pickle.")
    ] = None,
    exprs: Annotated[
        list[str] | None, typer.Option(metavar="KEY=EXPR", help="'x=np.ones((2, 3))', parsed and never evaluated.")
    ] = None,
    examples: Annotated[
        list[str] | None, typer.Option(metavar="KEY=[{...}]", help='tf.Example: \'x=[{"age": [22], "job": ["BS"]}]\'.')
    ] = None,
    tags: Annotated[str | None, typer.Option(metavar="A,B", help="The tag set.")] = None,
    signature: Annotated[str | None, typer.Option(help="The signature; `serving_default` if omitted.")] = None,
    version: Version = None,
    outdir: Annotated[Path | None, typer.Option(help="Write each output to OUTDIR/KEY.npy.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files in OUTDIR.")] = False,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Read pickles, which can run any code.")] = False,
    trust_model: Annotated[
        bool, typer.Option("--trust-model", help="Load the model although its ops may touch files or the network.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Call a signature once, in this process. --inputs, --exprs and --examples take several with ';' between."""
    import numpy as np
    from rich.text import Text

    from runner.cli.hand_call import as_array, inputs_of, output_files
    from runner.cli.hand_call import call as called
    from runner.cli.view.model import plain_values, printable
    from runner.model.signature import choose_metagraph, choose_signature
    from runner.scan.program import read_programs
    from runner.scan.trust import require_trust
    from runner.tensor import tensor_text

    given = inputs_of(inputs or [], exprs or [], examples or [], allow_pickle)
    spec = model_of(model, version)
    metagraph = choose_metagraph(spec, tuple(tags.split(",")) if tags else None)
    chosen = choose_signature(metagraph, signature, spec.url)
    require_trust(read_programs(spec), spec.url, trust_model)
    files = output_files(chosen, outdir, overwrite) if outdir else {}
    outputs = called(spec, metagraph.tags, chosen, given)
    told = {}
    for name, tensor in outputs.items():
        dtype = chosen.outputs[name].dtype
        array = as_array(tensor, dtype)
        told[name] = {"dtype": dtype, "shape": list(tensor.shape)}
        if outdir:
            outdir.mkdir(parents=True, exist_ok=True)
            np.save(files[name], array)
            told[name] |= {"file": str(files[name])}
        if as_json:
            told[name] |= {"values": plain_values(tensor, dtype)}
        else:
            title = Text.assemble((printable(name), "bold"), f"  {tensor_text(dtype, tensor.shape)}")
            body = f"written to {files[name]}" if outdir else np.array2string(array, threshold=1000)
            console().print(title, Text(body), sep="\n", soft_wrap=True)
    if as_json:
        print_json(told)
