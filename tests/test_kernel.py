"""Custom operators compute ReLU and its gradient, and tell PyTorch nothing wrong.

The operators in C++ and in Triton are checked in a process of their own: C++ registers
an operator for good, and the interpreter of Triton is asked for before its import.
"""

import functools
import multiprocessing
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
import warned
from collection import (
    CUSTOM_FUNCTION,
    SECONDS,
    curve,
    execute,
    run_in,
    skip_if_missing,
)

KERNEL = "advanced/two_layer_net_kernel.py"
CPP = "advanced/two_layer_net_cpp.py"
TRITON = "advanced/two_layer_net_triton.py"
OPERATORS = [KERNEL, CPP, TRITON]
DTYPES = [torch.float32, torch.float64]


def inputs(dtype):
    """Return tensors of all kinds: of no elements, of several blocks, with gaps."""
    randn = functools.partial(
        torch.randn, dtype=dtype, generator=torch.Generator().manual_seed(0)
    )
    infinite = torch.tensor([float("nan"), float("inf"), -float("inf")], dtype=dtype)
    shapes = [(), (0,), (1,), (4, 3), (33, 32)]
    views = [randn(4, 3).T, randn(4, 6)[:, ::2], randn(3, 1).expand(3, 2)]
    return [*map(randn, shapes), *views, infinite]


def computes_relu(relu):
    for dtype in DTYPES:
        for x in inputs(dtype):
            before = x.clone()
            expected = torch.where(x < 0, torch.zeros_like(x), x)
            torch.testing.assert_close(
                relu(x), expected, rtol=0, atol=0, equal_nan=True
            )
            assert torch.equal(x.nan_to_num(), before.nan_to_num())


def has_the_gradient_of_relu(relu):
    """Finite differences, away from 0; at 0 what torch.relu has."""
    x = torch.tensor([-2.0, -0.5, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relu, x)
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    weights = torch.tensor([2.0, 3.0, 4.0])
    (gradient,) = torch.autograd.grad((relu(x) * weights).sum(), x)
    assert gradient.tolist() == [0, 0, 4]


def passes_opcheck(relu):
    for x in (torch.randn(0), torch.randn(4, 3).T, torch.randn(4, 6)[:, ::2]):
        with warnings.catch_warnings():
            # PyTorch 2.15 itself asks copies of x for their grad.
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")
            torch.library.opcheck(relu, (x.requires_grad_(),))


def is_one_node_of_a_graph(relu):
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph.graph)
        return graph.forward

    class Double(torch.nn.Module):
        def forward(self, x):
            return 2 * relu(x)

    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    compiled = torch.compile(Double(), backend=backend, fullgraph=True)
    compiled(x).sum().backward()
    assert x.grad.tolist() == [0, 2]
    graphs.append(torch.export.export(Double(), (x.detach(),)).graph)
    assert len(graphs) == 2
    for graph in graphs:
        names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
        assert len(names) == 2
        assert sum(name.startswith("ladder") for name in names) == 1, names


CHECKS = [
    computes_relu,
    has_the_gradient_of_relu,
    passes_opcheck,
    is_one_node_of_a_graph,
]


@functools.cache
def operator(script):
    return execute(script)["relu"]


def apply(check, script):
    check(operator(script))


@pytest.fixture(scope="module", params=OPERATORS)
def script_and_call(request):
    """A script, and a function that calls another in the script's process."""
    script = request.param
    skip_if_missing(script)
    if script == KERNEL:
        yield script, lambda function, *args: function(*args)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=context, initializer=warned.make_errors
    ) as process:
        yield script, lambda *task: process.submit(*task).result(SECONDS)


@pytest.mark.parametrize("check", CHECKS)
def test_operator(script_and_call, check):
    script, call = script_and_call
    call(apply, check, script)


def kernel_stays_inside(script):
    """Of 16 elements it is given 5, and so has to leave 11 alone."""
    x, y = torch.ones(16), torch.full((16,), -1.0)
    execute(script)["relu_kernel"][(2,)](x, y, 5, BLOCK=4)
    assert y.tolist() == [1] * 5 + [-1] * 11


@pytest.mark.parametrize("script_and_call", [TRITON], indirect=True)
def test_kernel_in_triton_writes_nothing_beyond_the_end(script_and_call):
    script, call = script_and_call
    call(kernel_stays_inside, script)


@pytest.mark.parametrize(
    "check, right, wrong",
    [
        (computes_relu, "np.maximum", "np.minimum"),
        (computes_relu, "np.maximum", "np.fmax"),
        (has_the_gradient_of_relu, "* (output > 0)", ""),
        (has_the_gradient_of_relu, "output > 0", "output >= 0"),
        (passes_opcheck, "torch.empty_like(x)", "x.new_empty(3)"),
        (passes_opcheck, "torch.empty_like(x)", "x.clone().double()"),
        (passes_opcheck, "True), 0)", "True), 0, out=x.detach().numpy())"),
        (is_one_node_of_a_graph, "@relu.register_fake", ""),
    ],
)
def test_a_mistake_in_an_operator_would_be_seen(check, right, wrong):
    relu = execute(KERNEL, (right, wrong))["relu"]
    with pytest.raises(Exception):  # noqa: B017
        check(relu)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("script", OPERATORS)
def test_losses_are_those_of_the_function_bit_for_bit(script, dtype):
    skip_if_missing(script)
    assert torch.equal(curve(script, dtype=dtype), curve(CUSTOM_FUNCTION, dtype=dtype))


# One answers like a compiler, and compiles nothing.
COMPILERS = {
    "broken": "exit 1",
    "unable": '[ "$1" = --version ] && exec echo "g++ 13"; exit 1',
}


@pytest.mark.skipif(sys.platform == "win32", reason="the compilers are shell scripts")
@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiler_that_fails_is_told_in_one_line(compiler, tmp_path):
    file = tmp_path / "compiler"
    file.write_text("#!/bin/sh\n" + COMPILERS[compiler], encoding="utf-8")
    file.chmod(0o755)
    variables = {"CXX": str(file), "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    assert_told(run_in(tmp_path, CPP, **variables), "are g++ and ninja")


def test_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    variables = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "file")}
    assert_told(run_in(tmp_path, CPP, **variables), str(tmp_path / "file"))


def test_missing_tools_are_told_in_one_line(tmp_path):
    """Neither a compiler nor ninja is found."""
    variables = {"PATH": str(tmp_path), "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    done = run_in(tmp_path, CPP, **variables)
    assert_told(done, "pip install ninja")


def test_missing_triton_is_told_in_one_line(tmp_path):
    module = "raise ModuleNotFoundError(name='triton')"
    (tmp_path / "triton.py").write_text(module, encoding="utf-8")
    done = run_in(tmp_path, TRITON, PYTHONPATH=str(tmp_path))
    assert_told(done, "pip install triton")


def assert_told(done, advice):
    assert done.returncode == 2
    assert advice in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "loss" not in done.stdout
