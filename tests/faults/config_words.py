"""What is put into configurations: values of every kind and size, names, schedules, and YAML by itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from tests.faults.config_bases import Raw

__all__ = [
    "DEPTHS",
    "NEW_KEYS",
    "NUMBERS",
    "OTHERS",
    "PATHS",
    "RAW",
    "RAW_KEYS",
    "SCHEDULES",
    "TEXTS",
    "deep",
]

LONG: Final = "x" * 20_000
# fmt: off
TEXTS: Final[list[Any]] = [
    "", " ", "x", "1", "1e3", "null", "true", "3ep", "10%", "rest", "1e400ep", "*", "#", "*.*", "first.#",
    "\x00", "\x1b[2J", "a\nb", "\u202e", "é漢😀", "[bold]x[/]", "[/]", "{}", "%s {0}", "\x85", "\ufeff",
    "cuda", LONG, "9" * 5000, "<" + "9" * 5000, "*a" * 40, "#" * 300, "first" + "*" * 60 + "z", "😀" * 5000,
    "mps", "xla", "hpu", "vulkan", "privateuseone", "cuda:-1", "cuda:99999999999", "meta", "cpu:9", "bf16",
]
NUMBERS: Final[list[Any]] = [
    0, -1, 1, 2, 3, 1.5, -0.5, 1e3, 7.0, 1e-320, 1e308, 1e19, float("inf"), float("-inf"), float("nan"),
    2**40, 2**53, 2**62, 2**63 - 1, 2**63, 10**30, -(10**30), 10**400, 1_000_003, 10**12 + 1,
]
OTHERS: Final[list[Any]] = [
    None, True, False, [], [1], ["a"], [[]], [None], [{}], {}, {"a": 1}, {"": 1}, {"type": "x"},
    {"conf": {}}, {"type": None, "conf": None}, {"type": "Cosine", "conf": {"steps": 9}},
    {"type": "Custom", "conf": {"fn": "os._exit"}}, {"type": "Custom", "conf": {"fn": "shutil.rmtree"}},
    {"type": [], "conf": {}}, [0.9], [0.9, 0.9, 0.9], ["a", "b"], [0.9, 1.5], [-1, 0], {"z": 0},
    {"z": 3, "window": 2**62}, [{"ndim": "<2"}], [{"name": "*"}], [{"name": []}], [{"ndim": []}],
    [{"lr": 1}], [["name", "x"]], ["first", "first"], [{"name": "*", "betas": [0.5]}],
    [{"name": "*", "lr": float("nan")}], [{"name": "#", "layer_decay": 2}],
]
PATHS: Final[list[Any]] = [
    "", ".", "..", "a..b", "os.system", "os.path.", "builtins.eval", "builtins.exec", "builtins.__import__",
    "builtins.dict", "abc.ABC", "typing.Any", "torch.nn.Module", "torch.nn.Linear", "torch.nn.Parameter",
    "tests.faults.config_bases.trap", "tests.faults.config_bases.Trap", "tests.faults.config_bases.called",
    "tests.run.tiny.Sized", "tests.run.tiny.Frozen", "tests.run.tiny.NanLr", "tests.run.tiny.halved",
    "tests.run.tiny.Endless", "tests.run.tiny.Smooth", "tests.run.tiny.Tiny", "tests.run.tiny.Points",
    "tests.run.tiny.NotOnMeta", "tests.run.tiny.Tyni", "tests.run.tiny", "tests.run.tiny.Tiny.forward",
    "torch.utils.data.Dataset", "torch.utils.data.TensorDataset", "torch.utils.data.ConcatDataset",
    "torch.utils.data.Subset", "torch.utils.tensorboard.SummaryWriter", "torch.optim.Optimizer",
    "torch.optim.lr_scheduler.StepLR", "Optimizer", "LBFGS", "SparseAdam", "Muon", "Adafactor", "Rprop",
    "AdamW", "noam.Noamlr", "noam.NoamLr", "NoamLr", "exp.ExponentDecayLr", "OptimScheduler",
    "torch.optim.SGD", "optimscheduler.schedules.Cosine", "optimscheduler.schedules.base.Schedule",
    "optimscheduler.OptimScheduler", "os\x00.system", "tests.run.tiny.Tiny\n", " torch.optim.SGD",
    "\uff4f\uff53.system", "a." * 3000 + "b", LONG + ".y",
]
SCHEDULES: Final[list[Any]] = [
    "Cosine", "Cosine(", "Cosine()", "Cosine(steps=)", "Cosine(steps=9,,)", "Cosine(9)", "Cosine(stesp=9)",
    "Cosine(steps=9, steps=9)", "Cosine(steps=9)(1)", "Cosine(steps=0)", "Cosine(steps=-1)",
    "cosine(steps=9)", "Cosine(steps=1.5)", "Cosine(steps=1e400)", "Cosine(steps=True)",
    "Cosine(steps='101%')", "Cosine(steps='0ep')", "Cosine(steps='1e400ep')", "Cosine(steps='5tok')",
    "Cosine(steps='rest')", "Cosine(steps=9223372036854775807)", "Cosine(**{'steps': 9})", "Cosine(*[9])",
    "Linear(steps=9) * 2", "lambda s: 1", "__import__('os').system('x')", "Custom('os.system')",
    "Custom('builtins.eval')", "Custom('builtins.len')", "Custom('math.sqrt')", "Custom(3)",
    "Custom('math.log')", "Custom('math')", "Custom('a..b')", "Custom('torch.nn.Module')",
    "Custom('builtins.print')", "Custom('os._exit')", "Custom('os.close')", "Custom('shutil.rmtree')",
    "Custom('subprocess.getoutput')", "Custom('test.support.os_helper.rmdir')", "Custom('math.factorial')",
    "Custom(fn='os.abort')", "optimscheduler.schedules.Custom('builtins.exit')",
    "Warmup(steps=2, then=Custom('os._exit'))", "Custom('tests.faults.config_bases.own')",
    "Custom('tests.run.tiny.halved')", "Constant(1e308)", "Product(Constant(1e200), Constant(1e200))",
    "Constant(-1)", "Constant(nan)", "Constant([])", "Warmup(steps=5, then=ReduceOnPlateau())",
    "Sequence([(Constant(), '5ep')], Constant())", "Sequence([], 1)", "Sequence(((),), Constant())",
    "MultiStep(at=[3, 2, 1])", "Piecewise(points=[])", "Piecewise(points=[(1, 2), 3])", "NewBob()",
    "OneCycle(steps=5)", "CosineRestarts(steps=3, grow=1e9)", "Exponential(gamma=0)", "Step(every=0)",
    "Shift(Linear(steps=4), 9223372036854775807)", "PerEpoch(inner=Cosine(steps=3), steps_per_epoch='1ep')",
    "Polynomial(steps=9, power=1e300)", "Exponential(gamma=1e308)",
    "Warmup(steps='rest', then=Cosine(steps='rest'))", "torch.optim.SGD()", "tests.run.tiny.Tiny()",
    "os.system('x')", "Constant(()", "Constant(" + "9" * 5000 + ")",
    "Custom('tests.faults.config_bases.called')", "Constant(1j)", "Constant(b'')", "Constant(...)",
    "x" * 20_000,
]
RAW: Final[list[Any]] = [
    "!!python/object/apply:os.system ['touch hacked']", "!!python/name:os.system", "!foo 1", "!!int x",
    "!!int '7'", "!!binary aGk=", "!!set {a}", "!!omap [a: 1]", "!!timestamp 2001-01-01", "2001-01-01",
    "yes", "No", "off", "1_000", "0x1F", "0o17", "0b11", "1:30", "<<", "!!str 1", "!!null x", "!!map [1]",
    "!!merge x", "!!float 3", "!!bool 1", "|", ">", "@x", "`x`", "%x", "? a", "[1, 2", "{a: 1", "'x", '"x',
    '"\\ud800"', '"\\x00"', "&a", '"\\U00110000"', '"\\q"', "*", "*nowhere", "- 1", "a: b", "# nothing",
    "---", "...", "\t1", "&a [*a]", "\x07", "&a {<<: *a}", "{<<: 3}", "{<<: [1]}", "{<<: {type: x}}",
    "{? [1] : 2}", "{[1]: 2}", "{1: 2, null: 3}", "9" * 1001, "{a: 1, a: 2}", "1e400", "-1e400", "1e-400",
    ".nan", "-.inf", "1e1000000", "0x" + "f" * 900, "!!str", "! 1", "!<x> 1",
]
RAW_KEYS: Final[list[Any]] = [
    "<<", "[1]", "{a: 1}", "? a", "null", "~", "1.5", "1", "true", "yes", "!!int 1", "!!str 1", "*x", '""',
    "'", '"\\ud800"', '"\\x00"', "''", "- a", "&a b", "!foo b", '"\\e[2J"', ".nan", "&a", "{", "]", "@",
]
NEW_KEYS: Final[list[Any]] = [
    "lr", "self", "model", "params", "cls", "type", "conf", "batch_size", "accum_grad", "name", "steps",
    "seed", "__init__", "__class__", "wamup_steps", "fused", "foreach", "maximize", "x", "", " ", "é",
    "a.b", "a\nb", "\x1b[2J", "warmup_steps", "d_model", "schedule", "distributed", "tokens_per_update",
    "samples_per_update", "num_steps", LONG, "Adam", "sche_conf", "kwargs", "args", "amsgrad", "capturable",
    "betas", "default", "tokens_per_item",
]
# fmt: on
DEPTHS: Final = [10, 49, 60, 100, 150, 200, 400, 1000, 3000, 20_000]


def _bomb(levels: int, width: int) -> str:
    names = [f"b{i}" for i in range(levels)]
    first = f"&b0 [{', '.join('x' * width)}]"
    more = [f"&{name} [{', '.join([f'*{below}'] * width)}]" for below, name in pairwise(names)]
    return f"[{', '.join([first, *more])}]"


def _merged(levels: int) -> str:
    """Mappings that merge the one before ten times."""
    more = [f"&m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}" for i in range(1, levels)]
    return f"[{', '.join(['&m0 {k: 1}', *more])}]"


def deep(n: int) -> list[object]:
    opened = "Warmup(steps=1, then="
    return [
        Raw("[" * n + "]" * n),
        Raw("{a: " * n + "1" + "}" * n),
        Raw("[" * n),
        Raw("{type: Warmup, conf: {steps: 1, then: " * n + "Constant()" + "}}" * n),
        Raw("{type: Sequence, conf: {last: Constant(), phases: " + "[" * n + "]" * n + "}}"),
        Raw("!!str " * min(n, 200) + "x"),
        "Product(" * n + "Constant()" + ", Constant())" * n,
        opened * n + "Constant()" + ")" * n,
        "(" * n + ")" * n,
        "-" * n + "1",
        "Constant(" + "[" * n + "]" * n + ")",
        "Constant(" + "-" * n + "1)",
        "a" + ".b" * n + "()",
        Raw(_bomb(min(n, 12), 10)),
        Raw(_merged(min(n, 12))),
    ]
