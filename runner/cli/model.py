"""The commands that read a model: `show`, `scan` and `call`.

Knows flags and answers; what a model declares is read in `runner.model`. The invariant: each command imports what it
needs, so that `show` answers in a fraction of a second, and only `call` loads a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.errors import JobError, ModelError
from jobs.words import counted
from runner.cli.cache import cache_settings
from runner.cli.options import AsJson, ModelPlace, OpPackages, TrustOp, Version, flattened
from runner.cli.terminal import console, print_json
from runner.report.console import printable

if TYPE_CHECKING:
    from runner.engine import ModelOptions
    from runner.model.signature import MetaGraph, ModelSpec
    from runner.tensor import Outputs


def show(
    model: ModelPlace,
    tags: Annotated[str | None, typer.Option(metavar="A,B", help="Only this tag set.")] = None,
    signature: Annotated[str | None, typer.Option(help="Only this signature.")] = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """What a model declares: tag sets, signatures, tensors, and the Arrow columns they become."""
    from runner.cli.view import model as view
    from runner.model.signature import choose_metagraph, choose_signature
    from runner.scan.program import read_programs

    spec = _read(model, version)
    programs = read_programs(spec)
    wanted = _tag_set(tags)
    if wanted or signature:
        metagraph = choose_metagraph(spec, wanted)
        if signature:
            choose_signature(metagraph, signature, spec.url)
    if as_json:
        print_json(view.document(spec, programs))
    else:
        console().print(view.render(spec, wanted, signature, programs))


def scan(model: ModelPlace, version: Version = None, as_json: AsJson = False) -> None:
    """Look for ops that touch files, the network or Python. Exit 2 if `run` would refuse the model. Loads nothing."""
    import dataclasses

    from rich.text import Text

    from runner.scan import trust
    from runner.scan.packages import advice
    from runner.scan.program import read_programs

    spec = _read(model, version)
    refused = trust.scan(read_programs(spec))
    if as_json:
        findings = [dataclasses.asdict(finding) for finding in refused]
        print_json({"url": spec.url, "digest": spec.digest, "refused": findings})
    else:
        count = sum(sum(metagraph.ops.values()) for metagraph in spec.metagraphs)
        head = (
            f"{len(refused):,} of {counted(count, 'node')} may do more than compute"
            if refused
            else f"harmless: {counted(count, 'node')}"
        )
        console().print(Text(f"{printable(spec.url)}: {head}", style="bold red" if refused else "bold green"))
        for finding in refused:
            console().print(Text(f"  {printable(str(finding))}"), soft_wrap=True)
        for line in advice(finding.op for finding in refused):
            console().print(Text(printable(line)), soft_wrap=True)
    if refused:
        raise typer.Exit(ModelError.exit_code)


@dataclass(frozen=True)
class ArrayFlags:
    """What is fed: in three forms, see `runner.cli.hand_call.inputs_of`; or rows of a file, see `runner.cli.rows`."""

    inputs: Annotated[
        list[str] | None, typer.Option(metavar="KEY=FILE", help="A .npy file, file.npz[name], or a pickle.")
    ] = None
    exprs: Annotated[
        list[str] | None, typer.Option(metavar="KEY=EXPR", help="'x=np.ones((2, 3))', parsed and never evaluated.")
    ] = None
    examples: Annotated[
        list[str] | None, typer.Option(metavar="KEY=[{...}]", help='tf.Example: \'x=[{"age": [22], "job": ["BS"]}]\'.')
    ] = None
    rows: Annotated[
        str | None,
        typer.Option(metavar="FILE:FIRST-LAST", help="Rows of a file, from 0, the last one too: 'a.parquet:0-3'."),
    ] = None
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="TENSOR=COLUMN[,COLUMN]", help="Of --rows: feed a tensor, as `run` does."),
    ] = None


@dataclass(frozen=True)
class FolderFlags:
    """Where the outputs are written to, if anywhere."""

    outdir: Annotated[Path | None, typer.Option(help="Write each output to OUTDIR/KEY.npy.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files in OUTDIR.")] = False


@dataclass(frozen=True)
class OpFlags:
    """Which ops may be loaded beside those that only compute, and with whose libraries."""

    trust_model: Annotated[
        bool, typer.Option("--trust-model", help="Load the model although its ops may touch files or the network.")
    ] = False
    trust_op: TrustOp = None
    op_package: OpPackages = None

    def options(self, spec: ModelSpec, metagraph: MetaGraph) -> ModelOptions:
        """How the model is loaded.

        raises: ModelError for a package that does not fit, or a model that is not trusted.
        """
        from runner.engine import ModelOptions
        from runner.engine.ops.package import choose, trusted_ops
        from runner.scan.program import read_programs
        from runner.scan.trust import Trust, require_trust

        programs, names = read_programs(spec), self.op_package or []
        ops = {node.op for _, node in programs[spec.metagraphs.index(metagraph)].nodes()}
        chosen = choose(names, ops)
        require_trust(programs, spec.url, Trust(self.trust_model, frozenset(self.trust_op or ()), trusted_ops(names)))
        return ModelOptions(op_packages=chosen.packages)


@flattened
def call(
    model: ModelPlace,
    arrays: ArrayFlags,
    tags: Annotated[str | None, typer.Option(metavar="A,B", help="The tag set.")] = None,
    signature: Annotated[str | None, typer.Option(help="The signature; `serving_default` if omitted.")] = None,
    version: Version = None,
    *,
    folder: FolderFlags,
    trust: OpFlags,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Read pickles, which can run any code.")] = False,
    as_json: AsJson = False,
) -> None:
    """Call a signature once, in this process. --inputs, --exprs and --examples take several with ';' between."""
    import numpy as np
    from rich.text import Text

    from runner.cli import hand_call
    from runner.cli.rows import Rows
    from runner.cli.view.model import plain_values
    from runner.model.signature import choose_metagraph, choose_signature
    from runner.tensor import tensor_text

    if arrays.rows and (arrays.inputs or arrays.exprs or arrays.examples):
        raise JobError("cannot feed rows of a file and other values: give --rows, or --inputs, --exprs and --examples")
    if arrays.map_ and not arrays.rows:
        raise JobError("cannot use --map: it names columns of --rows, which is not there")
    given = hand_call.inputs_of(arrays.inputs or [], arrays.exprs or [], arrays.examples or [], allow_pickle)
    spec = _read(model, version)
    metagraph = choose_metagraph(spec, _tag_set(tags))
    chosen = choose_signature(metagraph, signature, spec.url)
    options = trust.options(spec, metagraph)
    files = hand_call.output_files(chosen, folder.outdir, folder.overwrite) if folder.outdir else {}
    if arrays.rows:
        rows = Rows(arrays.rows, chosen, arrays.map_ or [], model)
        outputs: Outputs = rows.cut(hand_call.run(spec, metagraph.tags, chosen, rows.feeds(), options))
    else:
        outputs = hand_call.call(spec, metagraph.tags, chosen, given, options)
    document = {}
    for name, tensor in outputs.items():
        dtype, file = chosen.outputs[name].dtype, files.get(name)
        array = hand_call.as_array(tensor, dtype)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, array)
        if as_json:
            place = {"file": str(file)} if file else {}
            values = plain_values(tensor, dtype)
            document[name] = {"dtype": dtype, "shape": list(tensor.shape), **place, "values": values}
        else:
            title = Text.assemble((printable(name), "bold"), f"  {tensor_text(dtype, tensor.shape)}")
            body = f"written to {file}" if file else np.array2string(array, threshold=1000)
            console().print(title, Text(body), sep="\n", soft_wrap=True)
    if as_json:
        print_json(document)


def _read(url: str, version: int | None) -> ModelSpec:
    """What the model at `url` declares; a remote one is copied to the cache that the environment names.

    raises: as `read_model`; JobError for a limit that is none.
    """
    from runner.model.folder import is_remote
    from runner.model.saved_model import read_model

    return read_model(url, version, cache=cache_settings() if is_remote(url) else None)


def _tag_set(tags: str | None) -> tuple[str, ...] | None:
    return tuple(tags.split(",")) if tags else None
