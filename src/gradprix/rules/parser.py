"""Parser that reads the source code of rules into trees; it reports unsupported constructs with their line."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from .ir import Assign, Call, Choice, Hyper, Name, Node, Number, Over, Reduction, Tree
from .ops import ELEMENTWISE, REDUCTIONS, WHOLE

OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.Mod: "%",
    ast.USub: "neg",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
ARGUMENTS = ("h", "t", "x", "g")
NOTHING: Mapping[str, int] = MappingProxyType({})
MAX_REPEATS = 20
"""Maximum number of iterations of a loop in a rule."""
Scope = Literal["element", "tensor"]


class RuleError(TypeError):
    """Error raised for an unsupported construct in a rule; the message contains file, line and remedy."""


def parse(
    function: Callable[..., Any],
    hyperparameters: Mapping[str, float | bool],
    scope: Scope = "element",
    given: tuple[str, ...] = ARGUMENTS,
    more: Mapping[str, int] = NOTHING,
) -> Tree:
    """Parse the source code of `function(h, t, x, g, *state)` and return its tree.

    Args:
        function: function defined in a file, since its source is read.
        hyperparameters: contents of `h`, with defaults; those with a bool as default are options.
        scope: `"element"`, or `"tensor"` for functions on whole tensors.
        given: names of the arguments that precede the state.
        more: names of further functions that it may call, with their numbers of arguments.

    Raises:
        RuleError: at the first unsupported construct, with its file and line.
    """
    file = inspect.getsourcefile(function) or "?"
    try:
        lines, first = inspect.getsourcelines(function)
    except OSError as error:
        raise RuleError(f"rule {function.__name__}: its source cannot be read. Write it in a file.") from error
    definition = ast.parse(textwrap.dedent("".join(lines))).body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise RuleError(f"{file}:{first}: a rule is a plain function made with def.")
    parser = _Parser(definition, file, first, hyperparameters, scope, more)
    return parser.tree(given)


def parse_expression(
    text: str, rule: str, hyperparameters: Mapping[str, float | bool], names: Collection[str], scope: Scope = "element"
) -> Node:
    """Parse an expression, in which hyperparameters are written without `h.`.

    Args:
        text: the expression, such as `sqrt(v_hat + eps)`.
        rule: name of the rule that it belongs to, for error messages.
        hyperparameters: hyperparameters of the rule, with defaults.
        names: identifiers of the rule, which take precedence over hyperparameters of the same name.
        scope: scope of the rule.

    Raises:
        RuleError: if the text is not an expression, or uses an unsupported construct.
    """
    try:
        definition = ast.parse(f"def {rule}(h):\n    ({text})").body[0]
    except SyntaxError as error:
        raise RuleError(f"in rule {rule}: {text!r} is not an expression: {error.msg}.") from error
    assert isinstance(definition, ast.FunctionDef)
    (statement,) = definition.body
    assert isinstance(statement, ast.Expr)
    parser = _Parser(definition, "expression", 0, hyperparameters, scope, NOTHING)
    parser.known = {*names}
    return parser.node(_Qualifier(hyperparameters.keys() - {*names}).visit(statement.value))


class _Qualifier(ast.NodeTransformer):
    """Replaces names of hyperparameters by attributes of `h`."""

    def __init__(self, hyperparameters: Collection[str]) -> None:
        self.hyperparameters = hyperparameters

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.hyperparameters:
            return node
        return ast.copy_location(ast.Attribute(ast.Name("h", ast.Load()), node.id, ast.Load()), node)


class _Parser:
    def __init__(
        self,
        definition: ast.FunctionDef,
        file: str,
        first: int,
        hyperparameters: Mapping[str, float | bool],
        scope: Scope,
        more: Mapping[str, int],
    ) -> None:
        self.definition, self.file, self.first = definition, file, first
        self.hyperparameters, self.scope = hyperparameters, scope
        self.vocabulary = ELEMENTWISE | REDUCTIONS | (WHOLE if scope == "tensor" else {}) | dict(more)
        self.known: set[str] = set()

    def refuse(self, node: ast.AST, what: str, cure: str) -> NoReturn:
        line = self.first + getattr(node, "lineno", 1) - 1
        raise RuleError(f"{self.file}:{line}: in rule {self.definition.name}: {what}. {cure}.")

    def tree(self, given: tuple[str, ...]) -> Tree:
        arguments = [a.arg for a in self.definition.args.args]
        count = len(given)
        if tuple(arguments[:count]) != given:
            begin = f"Begin with {', '.join(given)}, then the state"
            self.refuse(self.definition, f"the arguments are {arguments}", begin)
        state = tuple(arguments[count:])
        for name in state:
            self.check_name(self.definition, name)
        self.known = {*given[1:], *state}
        *body, last = self.definition.body
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body = body[1:]  # the docstring
        assigns = tuple(assign for statement in body for assign in self.statement(statement))
        return Tree(state, assigns, self.returns(last))

    def statement(self, statement: ast.stmt) -> list[Assign]:
        """Return the assignments of a statement: a single one, or all assignments of an unrolled loop.

        Loops with a literal count are unrolled, so that trees contain no loops. Only rules on whole tensors may have
        loops, for iterative methods such as Newton-Schulz or power iteration.
        """
        match statement:
            case ast.For(
                target=ast.Name(id="_"),
                iter=ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=int() as count)], keywords=[]),
                body=body,
                orelse=[],
            ) if self.scope == "tensor" and 0 < count <= MAX_REPEATS:
                return [self.assign(inner) for _ in range(count) for inner in body]
        return [self.assign(statement)]

    def returns(self, last: ast.stmt) -> tuple[str, ...]:
        value = last.value if isinstance(last, ast.Return) else None
        elements = value.elts if isinstance(value, ast.Tuple) else [value]
        if not all(isinstance(element, ast.Name) for element in elements):
            self.refuse(last, "it does not end by returning names", "End with `return x, ...` and the new state")
        return tuple(element.id for element in elements if isinstance(element, ast.Name))

    def assign(self, statement: ast.stmt) -> Assign:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.check_name(statement, name)
                tree = self.node(value)
                self.known.add(name)
                return Assign(name, tree, self.first + statement.lineno - 1)
        self.refuse(statement, f"`{ast.unparse(statement)}` is not `name = value`", "Write one assignment a line")

    def check_name(self, node: ast.AST, name: str) -> None:
        if name in ("h", "t") or name in self.vocabulary or name.startswith("_"):
            self.refuse(
                node, f"{name!r} is assigned", "Use another name: this one is given, or kept for generated code"
            )

    def node(self, node: ast.expr) -> Node:
        match node:
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int() | float() as value):
                return Number(value)
            case ast.Name(id=name):
                if name not in self.known:
                    self.refuse(node, f"{name!r} has no value here", f"Known: {', '.join(sorted(self.known))}")
                return Name(name)
            case ast.Attribute(value=ast.Name(id="h"), attr=name):
                if isinstance(self.hyper(node, name), bool):
                    self.refuse(node, f"the option h.{name} is used as a number", f"Write `a if h.{name} else b`")
                return Hyper(name)
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
                return Call(OPERATORS[type(operator)], (self.node(left), self.node(right)))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Call("neg", (self.node(operand),))
            case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in OPERATORS:
                return Call(OPERATORS[type(operator)], (self.node(left), self.node(right)))
            case ast.Call(func=ast.Name(id=function), args=[argument], keywords=options) if function in REDUCTIONS:
                return Reduction(function, self.node(argument), self.over(node, options))
            case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if function in self.vocabulary:
                takes = self.vocabulary[function]
                if len(arguments) != takes:
                    self.refuse(node, f"{function} got {len(arguments)} arguments", f"It takes {takes}")
                return Call(function, tuple(self.node(argument) for argument in arguments))
            case ast.IfExp(test=ast.Attribute(value=ast.Name(id="h"), attr=name), body=yes, orelse=no):
                self.hyper(node, name)
                return Choice(name, self.node(yes), self.node(no))
            case ast.IfExp(test=test, body=yes, orelse=no) if self.scope == "tensor":
                return Call("if", (self.node(test), self.node(yes), self.node(no)))
            case ast.IfExp(test=test):
                cure = "Write where(condition, a, b), which evaluates both"
                self.refuse(node, f"`{ast.unparse(test)}` is no option, and an element has no branches", cure)
            case ast.Call(func=ast.Name(id=function)) if function in WHOLE:
                what = f"`{ast.unparse(node)}` is of a whole tensor, and this rule sees one element at a time"
                self.refuse(node, what, 'Say scope="tensor" in @rule(...)')
        allowed = f"+ - * / **, comparisons, {', '.join(sorted(self.vocabulary))}, and `a if h.option else b`"
        self.refuse(node, f"`{ast.unparse(node)}` is outside the vocabulary", f"Allowed: {allowed}")

    def over(self, node: ast.AST, options: list[ast.keyword]) -> Over:
        """Return what a reduction extends over, given its keyword arguments."""
        match options:
            case []:
                return "tensor"
            case [ast.keyword(arg="over", value=ast.Constant(value="tensor" | "group" as over))]:
                return over
        self.refuse(node, f"`{ast.unparse(node)}` has other arguments", 'Allowed: over="tensor" or over="group"')

    def hyper(self, node: ast.AST, name: str) -> float | bool:
        if name not in self.hyperparameters:
            self.refuse(node, f"h.{name} is not declared", f"Give {name}=... a default in @rule(...)")
        return self.hyperparameters[name]
