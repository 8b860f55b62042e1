"""Traced steps as TorchScript, whose interpreter runs them without Python between operations.

The operations and their order stay as recorded, and the results stay bitwise equal.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

NUMBERS: dict[Any, int] = {
    **{kind: i for i, kind in enumerate((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))},
    **{kind: i for i, kind in enumerate((torch.float16, torch.float32, torch.float64), start=5)},
    **{torch.complex64: 9, torch.complex128: 10, torch.bool: 11, torch.bfloat16: 15, torch.strided: 0},
    **{torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2, torch.channels_last_3d: 3},
}
"""Numbers by which TorchScript represents dtypes, layouts and memory formats (c10/core/ScalarType.h,
MemoryFormat.h)."""


def to_torchscript(module: GraphModule, examples: Sequence[Tensor]) -> Callable[..., Sequence[Any]]:
    """Convert a graph to TorchScript; return the module itself if an operation cannot be converted.

    Args:
        module: a graph of torch's operations.
        examples: arguments for a test run.
    """
    try:
        run: Callable[..., Sequence[Any]] = torch._C._create_function_from_graph("step", _graph(module))
        with torch.no_grad():
            run(*examples)
    except (RuntimeError, TypeError, KeyError):
        return module
    return run


def _graph(module: GraphModule) -> Any:
    graph: Any = torch._C.Graph()
    values: dict[Node, Any] = {}

    def insert(kind: str, inputs: list[Any], *types: Any) -> Any:
        node = graph.insertNode(graph.create(kind, inputs, len(types)))
        for output, value_type in zip(node.outputs(), types, strict=True):
            output.setType(value_type)
        return list(node.outputs()) if len(types) > 1 else node.output()

    def value(x: Any, value_type: Any = None) -> Any:
        if isinstance(x, Node):
            return values[x]
        if isinstance(x, list | tuple) and any(isinstance(each, Node) for each in x):
            return insert("prim::ListConstruct", [value(each) for each in x], value_type)
        if isinstance(x, list | tuple):
            return graph.insertConstant(list(x))
        if isinstance(x, int) and str(value_type) == "float":
            x = float(x)
        return graph.insertConstant(NUMBERS[x] if isinstance(x, KINDS) else x)

    for node in module.graph.nodes:
        if node.op == "placeholder":
            values[node] = graph.addInput()
            values[node].setType(torch._C.TensorType.get())
        elif node.op == "get_attr":
            values[node] = graph.insertConstant(getattr(module, node.target))
        elif node.op == "output":
            results = [value(x) for x in node.args[0]]
            graph.registerOutput(
                insert("prim::TupleConstruct", results, torch._C.TupleType([x.type() for x in results]))
            )
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        else:
            schema = node.target._schema
            arguments = (
                dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
            )
            inputs = [value(arguments.get(each.name, each.default_value), each.type) for each in schema.arguments]
            values[node] = insert(schema.name, inputs, *(result.type for result in schema.returns))
            if [str(result.type) for result in schema.returns] == ["List[Tensor]"]:
                parts = [torch._C.TensorType.get()] * node.meta["parts"]
                parts_of_list = insert("prim::ListUnpack", [values[node]], *parts)
                values[node] = parts_of_list if len(parts) > 1 else [parts_of_list]
    graph.lint()
    return graph


KINDS = (torch.dtype, torch.layout, torch.memory_format)
