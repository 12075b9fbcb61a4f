r"""A trained policy as ONNX: the pair scorer of :mod:`rl.policy` as a graph of standard operators.

    score(i, o) = scale out(relu(mix(relu(agent_i + pair_io + resource_{r(o)}))))

The graph is written with ``onnx.helper`` alone (no tracing, no torch); every count of networks E, agents N, options O
and resources R is a dynamic axis, so that one file serves any of them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rl.policy import ArrayPolicy
from rl.proposal import Observation

OPSET, IR_VERSION = 17, 8  # read by onnxruntime 1.12 (2022) and later
INPUTS = ("agent", "resource", "pair", "live", "resource_of")
OUTPUT = "log_prior"
SCORER = (
    "agent.weight", "agent.bias", "resource.weight", "pair.weight", "mix.weight", "mix.bias", "out.weight", "out.bias",
    "scale",
)  # fmt: skip


def write_onnx(policy: ArrayPolicy, path: str | Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write ``policy`` to ``path``; ``notes`` become the model's metadata.

    Inputs are the fields of :class:`rl.proposal.Observation` that :func:`onnx_inputs` gives; the output "log_prior" is
    (E, N, O), unnormalised, 0 for agents that are not live.

    Raises:
        ModuleNotFoundError: onnx is not installed; says how to.
        ValueError: the policy is not a pair scorer alone; names the weights that are missing or unknown.
    """
    model = onnx_model(policy, notes or {})
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name[:100]}.{os.getpid()}-{secrets.token_hex(6)}.partial")  # nobody else's
    try:
        partial.write_bytes(model.SerializeToString())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def onnx_inputs(observation: Observation) -> dict[str, Any]:
    """An observation as the graph's inputs."""
    values = {name: np.asarray(getattr(observation, name)) for name in INPUTS}
    return {k: v.astype({"live": bool, "resource_of": np.int64}.get(k, np.float32)) for k, v in values.items()}


def onnx_model(policy: ArrayPolicy, notes: Mapping[str, str]) -> Any:
    """The checked model."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise ModuleNotFoundError("export to ONNX needs the package onnx: pip install 'hybridalloc[export]'") from None
    from onnx import TensorProto, helper, numpy_helper

    w = policy.weights
    wrong = [f"{k} is missing" for k in SCORER if k not in w] + [f"{k} is unknown" for k in w if k not in SCORER]
    if wrong:
        raise ValueError(f"{policy.name} is not a pair scorer that ONNX export knows: {', '.join(wrong)}")
    real, whole = (lambda x: np.asarray(x, np.float32)), (lambda *x: np.array(x, np.int64))
    constants: dict[str, Any] = {f"{k}.T": real(w[k]).T for k in SCORER if k.endswith(".weight")}
    constants |= {k: real(w[k]) for k in SCORER if not k.endswith(".weight")}
    constants |= {
        "axis1": whole(1), "axis2": whole(2), "last": whole(-1), "one": np.int64(1), "zero": np.float32(0),
        "pads": whole(0, 1, 0, 0, 0, 0),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("MatMul", ["agent", "agent.weight.T"], ["own0"]),
        node("Add", ["own0", "agent.bias"], ["own1"]),
        node("Unsqueeze", ["own1", "axis2"], ["own"]),  # (E, N, 1, H)
        node("MatMul", ["resource", "resource.weight.T"], ["seen"]),
        node("Pad", ["seen", "pads", "zero"], ["rows"]),  # row 0 stands for no resource
        node("Add", ["resource_of", "one"], ["row"]),
        node("Gather", ["rows", "row"], ["used"], axis=1),
        node("Unsqueeze", ["used", "axis1"], ["shared"]),  # (E, 1, O, H)
        node("MatMul", ["pair", "pair.weight.T"], ["pairs"]),
        node("Add", ["pairs", "own"], ["z0"]),
        node("Add", ["z0", "shared"], ["z1"]),
        node("Relu", ["z1"], ["z2"]),
        node("MatMul", ["z2", "mix.weight.T"], ["z3"]),
        node("Add", ["z3", "mix.bias"], ["z4"]),
        node("Relu", ["z4"], ["z5"]),
        node("MatMul", ["z5", "out.weight.T"], ["z6"]),
        node("Add", ["z6", "out.bias"], ["z7"]),
        node("Squeeze", ["z7", "last"], ["z8"]),
        node("Mul", ["z8", "scale"], ["score"]),
        node("Unsqueeze", ["live", "axis2"], ["deciding"]),
        node("Where", ["deciding", "score", "zero"], [OUTPUT]),
    ]
    f = TensorProto.FLOAT
    sizes = {k: w[f"{k}.weight"].shape[1] for k in ("agent", "resource", "pair")}
    inputs = [
        helper.make_tensor_value_info("agent", f, ["E", "N", sizes["agent"]]),
        helper.make_tensor_value_info("resource", f, ["E", "R", sizes["resource"]]),
        helper.make_tensor_value_info("pair", f, ["E", "N", "O", sizes["pair"]]),
        helper.make_tensor_value_info("live", TensorProto.BOOL, ["E", "N"]),
        helper.make_tensor_value_info("resource_of", TensorProto.INT64, ["O"]),
    ]
    output = helper.make_tensor_value_info(OUTPUT, f, ["E", "N", "O"])
    held = [numpy_helper.from_array(np.ascontiguousarray(v) if v.ndim else v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, policy.name, inputs, [output], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hybridalloc")
    model.ir_version = IR_VERSION
    helper.set_model_props(model, dict(notes))
    onnx.checker.check_model(model, full_check=True)
    return model
