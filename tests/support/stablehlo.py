"""Small modules of StableHLO as JAX writes them, checked in, so that they are read where no JAX is installed.

Run as `python -m tests.support.stablehlo` to write them anew, with jaxlib; they are not the same bytes in each of its
versions.
"""

from __future__ import annotations

from pathlib import Path

from runner.proto.saved_model_pb2 import AttrEntry, AttrValue, NameAttrList, NodeDef

FOLDER = Path(__file__).parents[1] / "data" / "stablehlo"

_F, _TOKEN = "tensor<3xf32>", "!stablehlo.token"
_CALL = f"%r = stablehlo.custom_call @evil(%x) {{backend_config = 'shape_assertion'}} : ({_F}) -> {_F}".replace(
    "'", '"'
)
TEXTS = {
    "fixed": f"func.func @main(%x: {_F}) -> {_F} {{ %r = stablehlo.add %x, %x : {_F} return %r : {_F} }}",
    "open": "func.func @main(%x: tensor<?x3xf32>) -> tensor<?x3xf32> { return %x : tensor<?x3xf32> }",
    "polymorphic": "module attributes {jax.uses_shape_polymorphism = true} {"
    " func.func @main(%x: tensor<?x3xf32>) -> tensor<?x3xf32> { return %x : tensor<?x3xf32> } }",
    "monomorphic": "module attributes {jax.uses_shape_polymorphism = false} {"
    f" func.func @main(%x: {_F}) -> {_F} {{ return %x : {_F} }} }}",
    "call": f"func.func @main(%x: {_F}) -> {_F} {{ {_CALL} return %r : {_F} }}",
    "call_in_a_branch": f'func.func @main(%p: tensor<i1>, %x: {_F}) -> {_F} {{ %s = "stablehlo.if"(%p) ({{ {_CALL}'
    f" stablehlo.return %r : {_F} }}, {{ stablehlo.return %x : {_F} }}) : (tensor<i1>) -> {_F} return %s : {_F} }}",
    "random": f"func.func @main(%a: tensor<f32>, %b: tensor<f32>) -> {_F} {{"
    " %s = stablehlo.constant dense<3> : tensor<1xi64> %r = stablehlo.rng %a, %b, %s, distribution = UNIFORM :"
    f" (tensor<f32>, tensor<f32>, tensor<1xi64>) -> {_F} return %r : {_F} }}",
    "token": f"func.func @main(%t: {_TOKEN}, %x: {_F}) -> ({_TOKEN}, {_F}) {{ return %t, %x : {_TOKEN}, {_F} }}",
    "outfeed": f'func.func @main(%x: {_F}) -> {_F} {{ %t = stablehlo.create_token : {_TOKEN} %r = "stablehlo.outfeed"'
    f'(%x, %t) {{outfeed_config = ""}} : ({_F}, {_TOKEN}) -> {_TOKEN} return %x : {_F} }}',
    "all_reduce": f'func.func @main(%x: {_F}) -> {_F} {{ %r = "stablehlo.all_reduce"(%x) ({{'
    " ^bb0(%a: tensor<f32>, %b: tensor<f32>): %s = stablehlo.add %a, %b : tensor<f32>"
    " stablehlo.return %s : tensor<f32> }) {replica_groups = dense<0> : tensor<1x1xi64>}"
    f" : ({_F}) -> {_F} return %r : {_F} }}",
    "handed_back": f"func.func @main(%a: {_F}, %b: {_F}, %x: {_F}) -> ({_F}, {_F}, {_F}, {_F}) {{"
    f" %s = stablehlo.add %x, %a : {_F} %r:3 = call @f(%b, %s, %a) : ({_F}, {_F}, {_F}) -> ({_F}, {_F}, {_F})"
    f" return %r#0, %r#1, %r#2, %b : {_F}, {_F}, {_F}, {_F} }}"
    f" func.func private @f(%u: {_F}, %v: {_F}, %w: {_F}) -> ({_F}, {_F}, {_F}) {{"
    f" %c = stablehlo.add %u, %u : {_F} return %w, %v, %c : {_F}, {_F}, {_F} }}",
    "composite": f'func.func @main(%x: {_F}) -> {_F} {{ %r = stablehlo.composite "a.b" %x {{decomposition = @f}} :'
    f" ({_F}) -> {_F} return %r : {_F} }} func.func private @f(%x: {_F}) -> {_F} {{ return %x : {_F} }}",
}
# Of StableHLO, each the last before the encoding changed; as the one that JAX writes today.
OLDER, TODAY = ("0.11.0", "0.13.0", "0.14.0"), "1.15.0"


def content(name: str, version: str = TODAY) -> bytes:
    return (FOLDER / f"{name}-{version}.mlirbc").read_bytes()


def node(module: bytes, name: str = "n", function: str = "", **lists: list[bytes]) -> NodeDef:
    """function: of the model, which the module may call."""
    attributes = [AttrEntry(key="version", value=AttrValue(i=10)), AttrEntry(key="module", value=AttrValue(s=module))]
    for key, values in ({"platforms": [b"CPU"]} | lists).items():
        attributes.append(AttrEntry(key=key, value=AttrValue(list=AttrValue.ListValue(s=values))))
    if function:
        called = AttrValue.ListValue(func=[NameAttrList(name=function)])
        attributes.append(AttrEntry(key="function_list", value=AttrValue(list=called)))
    return NodeDef(name=name, op="XlaCallModule", attr=attributes)


def _write() -> None:
    from jaxlib.mlir.dialects import stablehlo

    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in TEXTS.items():
        for version in (TODAY, *(OLDER if name.startswith("call") else ())):
            made = stablehlo.serialize_portable_artifact_str(text, version)
            (FOLDER / f"{name}-{version}.mlirbc").write_bytes(made)


if __name__ == "__main__":
    _write()
