"""The vendor's operator in other forms: the same values in another layout, and rounding only by permission."""

import pytest
import torch

import twofold
from twofold import kernels
from twofold.layers.check import noise
from twofold.layers.forms import FORMS, bf16_faster, forms_of, layout_of
from twofold.layers.linear import linear
from twofold.layers.measured import measuring
from twofold.space.correlation import correlate
from twofold.space.windows import Window

WINDOWS = {4: Window((3, 3), padding=(1, 1, 1, 1)), 5: Window((3, 3, 3), padding=(1,))}
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def case(axes, dtype=torch.float32):
    size = (6, 5, 4)[: axes - 2]
    return (
        noise(2, 8, *size, dtype=dtype),
        noise(12, 8, *[3] * (axes - 2), dtype=dtype, seed=1),
        noise(12, dtype=dtype, seed=2),
        WINDOWS[axes],
    )


@pytest.fixture
def measures(monkeypatch, tmp_path):
    """bf16 is the fastest wherever it may run."""
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path))
    monkeypatch.setattr("twofold.layers.measured._remembered", {})
    monkeypatch.setattr("twofold.layers.forms._has_bf16", lambda x: True)
    monkeypatch.setattr("twofold.layers.measured.clock", lambda contenders, *_: ({n: 1.0 - ("bf16" in n) * 0.9 for n in contenders}, True))
    with measuring():
        yield


def results(name, arguments):
    leaves = [a.detach().clone().requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments]
    y = correlate.by(name, *leaves)
    return [y, *torch.autograd.grad(y.square().sum(), leaves[:3])]


@pytest.mark.parametrize("axes", [4, 5])
def test_another_layout_gives_the_same_and_leaves_the_result_in_it(axes):
    arguments = case(axes, torch.float64)
    truth = results("vendor", arguments)
    for name, layout in (("vendor channels last", "last"), ("vendor channels first", "first")):
        got = results(name, arguments)
        assert all(torch.allclose(a, b, rtol=1e-11, atol=1e-11) for a, b in zip(got, truth, strict=True))
        assert layout_of(results(name, case(axes))[0]) == layout


@pytest.mark.parametrize("name", [name for name in FORMS if "bf16" in name])
def test_rounding_stays_within_its_bound_and_the_result_is_widened(name):
    x, weight, bias, window = (a.detach() if isinstance(a, torch.Tensor) else a for a in case(4))
    y = correlate.by(name, x, weight, bias, window)
    exact = correlate.by("plain", x.double(), weight.double(), bias.double(), window)
    size = correlate.by("plain", x.double().abs(), weight.double().abs(), bias.double().abs(), window)
    # every factor is off by 2^-9 of itself at most, so each product by 2 * 2^-9; the sum is rounded once more
    assert y.dtype == torch.float32 and ((y - exact).abs() <= 3.1 * 2**-9 * size).all()
    assert not torch.equal(y, correlate.by("vendor", x, weight, bias, window))


def test_gradients_flow_through_the_roundings_in_the_dtype_of_what_they_belong_to():
    for a, b in zip(results("vendor bf16", case(4))[1:], results("vendor", case(4))[1:], strict=True):
        assert a.dtype == torch.float32 and (a - b).norm() <= 2e-2 * b.norm()


def test_winograds_rounded_products_are_near_too():
    x, weight, window = noise(2, 24, 9, 7, dtype=torch.float32), noise(32, 24, 3, 3, dtype=torch.float32, seed=1), WINDOWS[4]
    if reason := correlate.others["native bf16"].unfit(x, weight, None, window):
        pytest.skip(reason)
    bias = noise(32, dtype=torch.float32, seed=2)
    for a, b in zip(results("native bf16", (x, weight, bias, window)), results("plain", (x, weight, bias, window)), strict=True):
        assert a.dtype == torch.float32 and (a - b).norm() <= 2e-2 * b.norm()
    assert "native bf16" not in correlate.contenders(x, weight, bias, window)


@pytest.mark.skipif(not kernels.available(), reason="the rule is that of the native kernels")
def test_where_a_rule_knows_only_what_rounds_is_measured(monkeypatch, measures):
    asked = []
    monkeypatch.setattr(
        "twofold.layers.measured.clock", lambda contenders, *_: asked.extend(contenders) or (dict.fromkeys(contenders, 1.0), True)
    )
    layer, x = twofold.nn.Conv2d(8, 8, 3), torch.randn(4, 8, 30, 30)
    with twofold.precision("bf16"):
        layer(x)
    assert asked == [layer.last_route, "vendor bf16"] and layer.last_route in ("native", "vendor")


def test_which_forms_there_are():
    x, weight, bias, window = case(4)
    bf16 = ["vendor bf16", "vendor bf16 channels last"] if torch.backends.cpu.get_cpu_capability() == "AVX512" else []
    assert forms_of((x, weight, bias), True, True) == ["vendor channels last", *bf16]
    assert forms_of((x.to(memory_format=torch.channels_last), weight), True, False) == ["vendor channels first"]
    assert forms_of((x[:, :, 0], weight), True, False) == []  # three axes have one layout
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert forms_of((x.to(dtype), weight.to(dtype)), False, True) == []
    assert forms_of((3,), True, True) == []


def test_an_emulated_bf16_is_no_contender(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert forms_of((torch.ones(2, 3),), False, True) == []


@pytest.mark.parametrize(
    ("has", "name", "faster"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "Intel(R) Xeon(R) Platinum 8480+", True),
        ({"amx_bf16": False, "avx512_bf16": True}, "Intel(R) Xeon(R) Processor", False),
        ({"avx512_bf16": True}, "AMD EPYC 9654", True),
        ({"avx512_bf16": False, "avx512_f": True}, "AMD EPYC 7000", False),
        ({}, "aarch64", False),
    ],
    ids=["AMX", "Intel", "AMD", "AVX-512", "unknown"],
)
def test_where_bf16_is_known_to_be_faster(has, name, faster, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    monkeypatch.setattr("twofold.layers.forms.processor", lambda: name)
    assert bf16_faster() is faster


def layers():
    return [(twofold.nn.Linear(64, 3), torch.randn(8, 64)), (twofold.nn.Conv2d(20, 20, 3), torch.randn(4, 20, 30, 30))]


def test_nothing_is_rounded_without_permission(measures):
    for layer, x in layers():
        exact = layer(x)
        assert "bf16" not in layer.last_route
        with twofold.precision("bf16"):
            y = layer(x)
            assert layer.last_route == "vendor bf16" and layer.last_reason == "measured"
            assert y.dtype == torch.float32 and 0 < (y - exact).abs().max() < 0.1
            with twofold.precision("full"):
                assert torch.equal(layer(x), exact)
        assert torch.equal(layer(x), exact) and "bf16" not in layer.last_route
    for operation, arguments in ((linear, case(4)[:0]), (correlate, case(4))):
        assert not arguments or not any("bf16" in name for name in operation.contenders(*arguments))


def test_permission_changes_nothing_for_other_dtypes_and_under_autocast(measures):
    for layer, x in layers():
        with twofold.precision("bf16"):
            for dtype in (torch.float64, torch.bfloat16):
                assert layer.to(dtype)(x.to(dtype)).dtype == dtype and "bf16" not in layer.last_route
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert layer.float()(x).dtype == torch.bfloat16 and layer.last_route == "vendor"


def test_permission_without_measuring_changes_nothing(measures):
    for layer, x in layers():
        with twofold.precision("bf16"), measuring(False):
            assert layer(x).dtype == torch.float32 and layer.last_route in ("vendor", "native")


def test_permission_decorates_functions():
    @twofold.precision("bf16")
    def permitted():
        return twofold.layers.forms.bf16_permitted()

    assert permitted() and not twofold.layers.forms.bf16_permitted()


def test_other_precisions_are_refused():
    with pytest.raises(ValueError, match='precision: expected "bf16" .* or "full" .*, got \'fp16\''), twofold.precision("fp16"):
        pass


def test_a_form_can_be_asked_for():
    layer = twofold.nn.Conv2d(20, 20, 3)
    for name in ("vendor channels last", "vendor bf16"):
        with twofold.route(name):
            layer(torch.randn(1, 20, 8, 8))
        assert layer.last_route == (name if name in forms_of((torch.ones(1, 1, 2, 2),), True, True) else "vendor")
    signal = twofold.nn.ReLU()
    with twofold.route("vendor bf16"):
        signal(torch.ones(2))
    assert signal.last_route == "vendor"  # it has no such form
