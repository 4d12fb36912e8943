"""Whether a model may be loaded: a SavedModel is a program that can touch files, use the network, run Python.

Looks at every node of every metagraph, in functions and in graphs that lie in constants and attributes, reached or
not, before TensorFlow sees the model. The rule: an op must be one that TensorFlow's registry calls stateless, or stand
on the short list here; and what opens files must open the model's own. What is not known to be harmless is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from math import prod

from google.protobuf.message import DecodeError

from jobs.errors import ModelError, offenders
from runner.model.signature import HIDDEN_SIGNATURES
from runner.model.tensor_proto import packed_strings
from runner.proto.saved_model_pb2 import AttrEntry, AttrValue, GraphDef, NodeDef, TensorProto
from runner.scan.ops import registry
from runner.scan.package_reads import FOLDER_READERS, reads_assets
from runner.scan.packages import advice, holders
from runner.scan.program import Place, Program, Reach
from runner.scan.xla import module
from runner.tensor import DTYPES

# Stateful ops that reach nothing but the memory of the session: patterns of `fnmatch`.
_ALLOWED = (
    # variables
    *("Variable", "VariableV2", "VarHandleOp", "VarIsInitializedOp", "VariableShape", "TemporaryVariable"),
    *("ReadVariableOp", "Assign*VariableOp", "ResourceCountUpTo", "ResourceGather*", "ResourceScatter*"),
    *("ResourceStridedSliceAssign", "ResourceApply*", "ResourceSparseApply*", "DestroyResourceOp", "DisableCopyOnRead"),
    # tables and boosted trees
    *(
        "*HashTable",
        "*HashTableV2",
        "*HashTableOfTensors",
        "*HashTableOfTensorsV2",
        "LookupTable*",
        "InitializeTableV2",
    ),
    *("BoostedTrees*", "IsBoostedTrees*"),
    # control flow and what lives for one call
    *("Case", "If", "While", "StatefulPartitionedCall", "TensorArray*", "Stack", "StackV2", "Stack*V2"),
    *("MutexV2", "MutexLock", "ConsumeMutexLock", "DeviceIndex", "GuaranteeConst", "DeepCopy", "Empty"),
    # checks, random numbers, the clock
    *("Assert", "CheckNumerics*", "Multinomial", "ParameterizedTruncatedNormal", "TruncatedNormal", "Timestamp"),
    *("RandomCrop", "RandomGamma", "RandomPoisson*", "RandomShuffle", "RandomStandardNormal", "RandomUniform*"),
    *("RngReadAndSkip", "RngSkip", "Stateful*Normal*", "StatefulUniform*", "StatefulRandomBinomial"),
    *("NonDeterministicInts", "StatelessRandomGetAlg", "SampleDistortedBoundingBox*"),
    *("UniformCandidateSampler", "LogUniformCandidateSampler", "LearnedUnigramCandidateSampler"),
    *("AllCandidateSampler", "ThreadUnsafeUnigramCandidateSampler", "CudnnRNN*"),
)

# Ops that are refused, and what to say of them. The registry calls some of these stateless: ReadFile, for one.
_REFUSED = {
    "reads files": (
        *("ReadFile", "MatchingFiles", "*Reader", "*ReaderV2", "Reader*", "ImmutableConst", "GenerateVocabRemapping"),
        *("LoadAndRemapMatrix", "DTensorRestoreV2", "RecordInput", "Skipgram", "FixedUnigramCandidateSampler"),
    ),
    "writes files": (
        *("WriteFile", "DumpTensor", "*SummaryWriter", "CreateSummary*", "Write*Summary", "WriteSummary"),
        *("ImportEvent", "DistributedSave", "CalibrationStatisticsSaver"),
    ),
    "prints what it is given, into a file if it likes": ("Print", "PrintV2"),
    "runs Python": ("*PyFunc*",),
    "reads files, or runs a graph that is data": ("*Dataset*", "*Iterator*"),
    "talks to other devices or machines": (
        "Rpc*",
        "Send",
        "Recv",
        "RemoteCall",
        "Collective*",
        "Nccl*",
        "_*Send",
        "_*Recv",
    ),
    "sends tensors to a file or an address": ("Debug*", "Copy", "CopyHost"),
    "changes how TensorFlow reaches files": ("FileSystemSetConfiguration",),
    "runs a program that cannot be looked into": (
        *("XlaCustomCall*", "XlaLaunch*", "XlaHostCompute", "MlirPassthroughOp", "TPU*"),
    ),
    "ends the process": ("Abort",),
}

_RESTORES = ("Restore", "RestoreSlice", "RestoreV2")  # allowed to read the model's own checkpoint
_SAVES = ("Save", "SaveSlices", "SaveV2", "MergeV2Checkpoints")  # in every model, never called here
_ASSET_READERS = {"InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}  # op -> which input is the path
_SCHEMA_READERS = ("DecodeProtoV2", "EncodeProto")  # `descriptor_source` may be a file
_SCHEMA_WITHIN = (b"local://", b"bytes://")

_NAME = re.compile(r"[A-Za-z_.][A-Za-z0-9_.>/\\-]*")
_MAX_DEPTH = 5  # of graphs within graphs


@dataclass(frozen=True)
class Finding:
    """A node that is refused.

    where:  '' in the graph, "function 'f'", "the graph in 'c'"; with the metagraph where there are several.
    why:    what its op does, as the end of a sentence.
    runs:   what runs it: 'at load', 'at restore', "signature 'f'", 'by an object'; empty: nothing that is known of.
    """

    op: str
    node: str
    where: str
    why: str
    runs: tuple[str, ...]

    def __str__(self) -> str:
        where = f" of {self.where}" if self.where else ""
        runs = f" ({', '.join(self.runs)})" if self.runs else ""
        return f"{self.op} {self.why}: node {self.node!r}{where}{runs}"


def scan(programs: Sequence[Program]) -> list[Finding]:
    """Every node that is refused, in the order of the file; those that run at load come first."""
    findings = []
    for program in programs:
        where = f"metagraph '{','.join(program.tags)}'" if len(programs) > 1 else ""
        findings += list(_scanned(program, where, 0))
    return sorted(findings, key=lambda finding: not {"at load", "at restore"} & set(finding.runs))


@dataclass(frozen=True)
class Trust:
    """What a user lets a model do.

    ops:      by name. packaged: ops of the packages that the user named -> whether they are stateful.
    """

    everything: bool = False
    ops: frozenset[str] = frozenset()
    packaged: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, said: bool | Iterable[str]) -> Trust:
        """said: as a job says it, true or false or the names of ops."""
        return cls(everything=said) if isinstance(said, bool) else cls(ops=frozenset(said))

    def allows(self, finding: Finding) -> bool:
        return self.everything or finding.op in self.ops

    def idle(self, programs: Sequence[Program]) -> tuple[str, ...]:
        """Sentences about names that let nothing through: mistyped, or left over from another model."""
        if self.everything or not self.ops:
            return ()
        names = self.ops - {finding.op for finding in self.findings(programs)}
        held = {node.op for program in programs for _, node in program.nodes()}
        said = {
            "are not refused anyway": sorted(names & held),
            "are not in the model": sorted(names - held),
        }
        return tuple(f"`trust` names ops that {why}: {', '.join(ops)}" for why, ops in said.items() if ops)

    def findings(self, programs: Sequence[Program]) -> list[Finding]:
        """What is refused, the ops of packages apart; an op that TensorFlow itself has is in no package."""
        return [
            found for found in scan(programs) if not (found.op in self.packaged and found.why == _foreign(found.op))
        ]


def require_trust(programs: Sequence[Program], model_url: str, trust: Trust) -> tuple[str, ...]:
    """Refuse a model that is not known to be harmless, unless its user trusts it.

    returns: the ops that are let through because of that trust, sorted; none for a harmless model.
    raises:  ModelError naming nodes and ops.
    """
    findings = trust.findings(programs)
    allowed = sorted({finding.op for finding in findings if trust.allows(finding)})
    refused = [finding for finding in findings if not trust.allows(finding)]
    if not refused:
        return tuple(allowed)
    count = f"{len(refused)} of its nodes" if len(refused) > 1 else "one of its nodes"
    beside = f", beside those that the job trusts ({', '.join(allowed)})" if allowed else ""
    needed = ", ".join(sorted({*allowed, *(finding.op for finding in refused)}))
    known = "".join(f"\n  {line}" for line in advice(finding.op for finding in refused))
    raise ModelError(
        f"cannot trust model '{model_url}': {count} may do more than compute{beside}; it was not loaded\n"
        f"{offenders([str(finding) for finding in refused])}{known}\n"
        f"  `runner scan` lists all; only if you trust its maker: --trust-op for each, or 'trust: [{needed}]' under"
        " 'model', loads it with these ops and no others, and --trust-model, or 'trust: true' under 'model', loads it"
        " whatever it holds",
        code="UNTRUSTED_MODEL",
    )


def _scanned(program: Program, where: str, depth: int) -> Iterator[Finding]:
    reaches = {"at load": program.at_load, "at restore": program.at_restore}
    for name in program.signatures:
        if name not in HIDDEN_SIGNATURES:
            reaches[f"signature '{name}'"] = program.behind(name)
    reaches["by an object"] = program.by_objects
    for place, node in program.nodes():
        if why := _refusal(program, place, node, reaches):
            at = _joined([f"function '{place}'" if place else "", where])
            yield Finding(node.op, node.name, at, why, _runs(place, node, reaches))
        for graph in _graphs_within(node):
            at = _joined([f"function '{place}'" if place else "", where])
            inside = _joined([f"the graph in '{node.name}'", at])
            if depth == _MAX_DEPTH:
                yield Finding(node.op, node.name, at, f"holds graphs within graphs, more than {depth} deep", ())
            else:
                yield from _scanned(Program(graph), inside, depth + 1)


def _refusal(program: Program, place: Place, node: NodeDef, reaches: dict[str, Reach]) -> str:
    """Why a node is refused; '' where it is not."""
    op = node.op
    if op in _RESTORES:
        # Only while it restores does a loader feed the path; elsewhere it is what the model says.
        own = set(_runs(place, node, reaches)) <= {"at restore", "by an object"} and _given(
            program, place, node, 0, program.checkpoint_tensors
        )
        return "" if own or not _runs(place, node, reaches) else "reads a checkpoint that is not the model's own"
    if op in _SAVES:
        return "writes a checkpoint" if _runs(place, node, reaches) else ""
    if op in _ASSET_READERS:
        called = any(name.startswith("signature") for name in _runs(place, node, reaches))  # then no path is fed either
        own = not called and _given(program, place, node, _ASSET_READERS[op], program.asset_tensors)
        return "" if own else "reads a file that is not one of the model's assets"
    if op in FOLDER_READERS:
        called = any(name.startswith("signature") for name in _runs(place, node, reaches))
        if called or not reads_assets(program, place, node):
            return "reads files that are not the model's assets"
    if op in _SCHEMA_READERS:
        sources = [each.value.s for each in node.attr if each.key == "descriptor_source"]
        return "" if all(not source or source.startswith(_SCHEMA_WITHIN) for source in sources) else "reads a file"
    if op == module.OP:
        return module.module(place, node).refusal()  # the functions that it may call are looked at themselves
    if op in program.functions and op not in registry().stateful:
        return ""  # a call: the nodes of the function are looked at themselves
    return _verdict(op)


def _runs(place: Place, node: NodeDef, reaches: dict[str, Reach]) -> tuple[str, ...]:
    return tuple(name for name, reach in reaches.items() if (place, node) in reach)


@cache
def _verdict(op: str) -> str:
    for why, patterns in _REFUSED.items():
        if _matches(op, patterns):
            return why
    known = registry()
    if op not in known.stateful:
        return _foreign(op)
    return "has effects that are not known to be harmless" if known.stateful[op] and not _matches(op, _ALLOWED) else ""


def _foreign(op: str) -> str:
    """What is said of an op that TensorFlow does not have."""
    if packages := holders(op):
        return f"is no op of {registry()} but of {' and '.join(packages)}"
    return f"is no op of {registry()}, and so what it does is unknown"


def _matches(op: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(op, pattern) for pattern in patterns)


def _given(program: Program, place: Place, node: NodeDef, index: int, accepted: frozenset[str]) -> bool:
    return index < len(node.input) and program.stems_from(place, node.input[index], accepted)


def _graphs_within(node: NodeDef) -> Iterator[GraphDef]:
    for text in _strings(node.attr):
        # The tag of a graph's nodes and that of a node's op: without both it is no graph.
        if b"\n" in text and b"\x12" in text and (graph := _as_graph(text)) is not None:
            yield graph


def _as_graph(content: bytes) -> GraphDef | None:
    try:
        graph = GraphDef.FromString(content)
    except DecodeError:
        return None
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return graph if nodes and all(_NAME.fullmatch(node.op) for node in nodes) else None


def _strings(attributes: Iterable[AttrEntry]) -> Iterator[bytes]:
    """Every string in attributes and constants."""
    for attribute in attributes:
        value: AttrValue = attribute.value
        match value.WhichOneof("value"):
            case "s":
                yield value.s
            case "tensor":
                yield from _strings_of(value.tensor)
            case "func":
                yield from _strings(value.func.attr)
            case "list":
                yield from value.list.s
                for tensor in value.list.tensor:
                    yield from _strings_of(tensor)
                for function in value.list.func:
                    yield from _strings(function.attr)


def _strings_of(tensor: TensorProto) -> Iterable[bytes]:
    if tensor.dtype != DTYPES["string"][0] or not tensor.tensor_content:
        return tensor.string_val
    try:
        return packed_strings(tensor.tensor_content, prod(dim.size for dim in tensor.tensor_shape.dim))
    except ValueError:
        return ()  # TensorFlow does not read it either


def _joined(parts: Sequence[str]) -> str:
    return " of ".join(part for part in parts if part)
