"""Mistakes in an experiment file: each is one message with its place, before work starts."""

import pytest
from mistaken import FILE, launched, written

CONFIG = "@dataclasses.dataclass(frozen=True)\nclass Config:\n    rate: float = 0.1\n"

# (where the statement stands, the statement, what the message says)
MISTAKES = {
    # What the file defines.
    "an import": ("top", "import not_there", "line 53: ModuleNotFoundError: No module named"),
    "an import of another": ("top", "from experiments import other", "line 53: ImportError"),
    "at the top level": ("top", "1 / 0", "line 53: ZeroDivisionError: division by zero"),
    "without end": ("top", "f = lambda: f()\nf()", "line 53, in <lambda>: RecursionError"),
    "an exit": ("top", "sys.exit('enough')", "line 53: SystemExit: it ended the program (enough)"),
    "an exit in build": ("inside", "sys.exit()", "line 63, in build: SystemExit"),
    "a sweep as a list": ("top", "SWEEP = ['rate']", "SWEEP must be {field of Config: (value,"),
    "a sweep of one value": ("top", "SWEEP = {'rate': 0.1}", "SWEEP['rate'] must be a list or"),
    "a sweep of text": ("top", "SWEEP = {'rate': '0.1'}", "SWEEP['rate'] must be a list or tuple"),
    "a sweep of nothing": ("top", "SWEEP = {'rate': ()}", "SWEEP['rate'] must be a list or tuple"),
    "a sweep of what is not there": ("top", "SWEEP = {'rat': (1,)}", "Did you mean '--config.rate"),
    # What `build` returns.
    "build raises": ("inside", "{}['x']", "line 63, in build: KeyError: 'x'"),
    "an unknown field": ("inside", "config.rat", "'Config' object has no attribute 'rat'"),
    "nothing": ("inside", "return", "build must return an Experiment, it returned None; is its"),
    "a dict": ("inside", "return {}", "it returned {}; write Experiment(arms=..., baseline=...,"),
    "the class": ("inside", "return Experiment", "the class Experiment; did you mean to call it?"),
    "a generator": ("inside", "yield 3", "it returned a generator; write `return`"),
    # Arms and stages.
    "arms in a list": ("below", "arms = [[stage]]", "arms must be {name: a list or tuple, each"),
    "a stage for a list": ("below", "arms = {'a': stage}", "arms['a'] must be a list or tuple"),
    "a generator of stages": ("below", "arms = {'a': (s for s in [stage])}", "got a generator"),
    "no stage": ("below", "arms['empty'] = []", "arm 'empty' has no stages"),
    "None for a stage": ("below", "arms = {'a': [stage, None]}", "arms['a'][1] must be a Stage"),
    "an arm's name": ("below", "arms = {3: [stage]}", "a name in arms must be text, got 3"),
    "an empty name": ("below", "arms = {'': [stage]}", "a name in arms must be text that can be"),
    "no arms": ("below", "arms = {}", "unknown baseline arm 'first'. Known: none"),
    "no baseline": ("below", "baseline = None", "baseline must be text, got None"),
    "twins": (
        "below",
        "arms['b'] = [dataclasses.replace(stage, name='PRE')]",
        "stages 'pre' and 'PRE' would be one folder where case does not count",
    ),
    "too long a name": ("inside", "name = 'x' * 256", "at most 255 bytes, got 'xxx"),
    "too many bytes": ("inside", "name = 'ü' * 128", "at most 255 bytes"),
    "a name of two lines": ("inside", "name = 'a\\nb'", "name must be text that can name a folder"),
    "no name": ("inside", "name = None", "name must be text, got None"),
    "a path": ("inside", "name = '../up'", "its name must be that of a folder, without /"),
    "a float of examples": ("inside", "batch_size = 64.0", "must be a whole number, got 64.0"),
    "text of examples": ("inside", "batch_size = '64'", "must be a whole number, got '64'"),
    "True examples": ("inside", "batch_size = True", "must be a whole number, got True"),
    "too many examples": (
        "inside",
        "batch_size = 2**31",
        "batch_size must be a whole number below",
    ),
    "no memory for them": ("inside", "batch_size = 2**31 - 1", "batches of 2147483647 examples"),
    "a float of steps": ("inside", "num_steps = 1e3", "num_steps must be a whole number, got 1000"),
    "None steps": ("inside", "num_steps = None", "num_steps must be a whole number, got None"),
    "a pattern": ("inside", "fresh = 'heads/.*'", "fresh must be a list or tuple of patterns, as"),
    "letters": (
        "inside",
        "fresh = tuple('heads/.*')",
        "a list or tuple of patterns, as in ('heads",
    ),
    # Domains.
    "a dataset": ("inside", "domains = [blobs(0)]", "a domain such as labelled(dataset, 'head')"),
    "one domain": ("inside", "domains = domains[0]", "domains must be a list or tuple"),
    "an array": ("inside", "domains = [np.zeros(3)]", "domains[0] must be a domain such as"),
    "splits": ("inside", "labelled(data.digits(), 'y')", "got Splits; take one of them, such as"),
    "a head that is no name": ("inside", "labelled(blobs(0), 3)", "heads must be {name: text}"),
    "a weight": (
        "inside",
        "labelled(blobs(0), 'y', weight='1')",
        "weight must be a number, got '1'",
    ),
    "a map of nothing": (
        "inside",
        "domains = [labelled(blobs(0).map(lambda table: None), 'y')]",
        "must return a Table, it returned a NoneType",
    ),
    "a map that raises": (
        "inside",
        "domains = [labelled(blobs(0).map(lambda table: table.labels['x']), 'y')]",
        "line 63, in <lambda>: KeyError: 'x'",
    ),
    **{
        f"weights, {name}": (
            "inside",
            f"domains = [labelled(blobs(0), 'y', example_weights={function})]",
            message,
        )
        for name, function, message in (
            ("None", "lambda labels: None", "dataset blobs: example_weights must be numbers [24]"),
            ("raises", "lambda labels: labels['x']", "line 63, in <lambda>: KeyError: 'x'"),
            ("text", "lambda labels: ['a'] * 24", "example_weights must be numbers [24]"),
            ("arguments", "lambda: 1", "example_weights must be a function of 1 argument"),
        )
    },
    **{
        f"augmentation, {name}": (
            "inside",
            f"domains = [labelled(blobs(0), 'y', augment={function})]",
            message,
        )
        for name, function, message in (
            ("drops", "lambda rng, x: x[::2]", "must return as many examples as it is given"),
            ("types", "lambda rng, x: x > 0", "of float32[3, 3] it makes bool[3, 3]"),
            ("None", "lambda rng, x: None", "it makes nothing"),
            ("raises", "lambda rng, x: 1 / 0", "line 63, in <lambda>: ZeroDivisionError"),
            ("arguments", "lambda x: x", "augment must be a function of 2 arguments"),
            ("of ours", "data.random_crop(-1)", "random_crop: padding must be a whole number of"),
        )
    },
    # Models.
    "no width": ("inside", "hidden = (0,)", "line 64, in build: mlp: hidden[0] must be a whole"),
    "a negative width": ("inside", "hidden = (-3,)", "hidden[0] must be a whole number from 1"),
    "a width for widths": ("inside", "hidden = 64", "mlp: hidden must be a list or tuple"),
    "too wide": ("inside", "hidden = (2**20, 2**20)", "GB of memory"),
    "much too wide": ("inside", "hidden = (2**40,)", "hidden[0] must be a whole number from 1 to"),
    "heads in a list": ("inside", "heads = ['y']", "mlp: heads must be {name: a head such as"),
    "a head as a number": ("inside", "heads = {'y': 3}", "a head such as classes(5), got 3"),
    "a head's slash": (
        "inside",
        "heads['a/b'] = classes(2)",
        "text that can be printed, without a",
    ),
    "no classes": ("inside", "classes(0)", "head: size must be a whole number from 1"),
    "half a class": ("inside", "classes(2.5)", "head: size must be a whole number, got 2.5"),
    "a head's mean": (
        "inside",
        "heads = {'y': Head(3, lambda outputs, labels: outputs.mean())}",
        "must return a float for each label, of outputs [8, 1, 3] and labels [8, 1]; it returned",
    ),
    "a head's loss of nothing": ("inside", "heads = {'y': Head(3, lambda o, y: None)}", "head 'y'"),
    "a head's integers": (
        "inside",
        "heads = {'y': Head(3, lambda o, y: y)}",
        "returned int32[8, 1]",
    ),
    "all dropped": (
        "below",
        "arms['b'] = [dataclasses.replace(stage, name='b', model=models.mlp(heads, dropout=1.0))]",
        "mlp: dropout must be a number in [0, 1), got 1.0",
    ),
    "a layer without outputs": (
        "below",
        "model = models.from_linen(nn.Dense(0), heads)\n"
        "arms['b'] = [dataclasses.replace(stage, name='b', model=model)]",
        "stage 'b': Dense: features must be a whole number from 1",
    ),
    "a layer that drops all": (
        "below",
        "model = models.from_linen(nn.Dropout(1.5, deterministic=False), heads)\n"
        "arms['b'] = [dataclasses.replace(stage, name='b', model=model)]",
        "stage 'b': Dropout: rate must be a number in [0, 1), got 1.5",
    ),
    # Methods.
    "no method": ("inside", "method = transfer.full", "a method such as transfer.full(optax.adam("),
    "an optimizer": ("inside", "method = tx", "method must be a method such as transfer.full("),
    "an optimizer not made": (
        "inside",
        "method = transfer.full(optax.adam)",
        "stage 'pre': optimizer 'all' is the function adam, uncalled, or a schedule",
    ),
    "a rate": ("inside", "method = transfer.full(0.1)", "optimizer 'all' is 0.1, a float"),
    **{
        f"method, {field}": ("inside", f"mine(supervised_loss, {field})", message)
        for field, message in {
            "ema=1": "ema must be a number in [0, 1), got 1",
            "ema=2.0": "ema must be a number in [0, 1), got 2.0",
            "ema=-1": "ema must be a number in [0, 1), got -1",
            "ema=float('nan')": "ema must be a number in [0, 1), got nan",
            "clip_norm=0": "clip_norm must be a number above 0, and finite, got 0",
            "clip_norm=-1": "clip_norm must be a number above 0, and finite, got -1",
            "swa=3": "swa must be (a whole number, a whole number), got 3",
            "prepare_every=1.5": "prepare_every must be a whole number, got 1.5",
            "prepare=lambda model: 3": "prepare must be a function of 4 arguments",
            "state=lambda: 3": "state must be a function of 4 arguments",
            "predict=lambda x: x": "predict must be a function of 4 arguments",
            "modules={'d': 3}": "modules['d'] must be a module such as models.mlp_head(",
            "modules={'d': Module(3, max)}": "modules['d'].init must be a function",
            "solves='heads/.*'": "solves must be a list or tuple",
        }.items()
    },
    "a pattern to freeze": (
        "inside",
        "transfer.partial(tx, freeze='backbone/.*')",
        "optimizers['frozen'][0] must be a list or tuple of patterns",
    ),
    "repeated never": ("inside", "Update(supervised_loss, repeat=0)", "repeat must be a whole"),
    "a module's name": (
        "inside",
        "method = mine(supervised_loss, modules={'heads': models.mlp_head((3,), 2)})",
        "a module of the method cannot be called 'heads'",
    ),
    **{
        f"loss, {name}": ("inside", f"method = mine(lambda m, p, s, b, r, t: {returned})", message)
        for name, returned, message in (
            ("a number", "3", "must return (loss, (state, {metric: value})), it returned 3"),
            ("None", "None", "must return (loss, (state, {metric: value})), it returned None"),
            ("no auxiliary", "(p['heads']['y']['bias'].sum(), s)", "it returned (loss, a State)"),
            ("a vector", "(jnp.zeros(3), (s, {}))", "must be a scalar of floats, got float32[3]"),
            ("an integer", "(jnp.int32(3), (s, {}))", "must be a scalar of floats, got int32[]"),
            ("a state", "(0.0, ({'a': jnp.zeros(2)}, {}))", "form of the state as it is: ['a'] is"),
            (
                "no state",
                "(0.0, (None, {}))",
                "form of the state as it is: it was a State and is None",
            ),
            ("step", "(0.0, (s, {'step': 1.0}))", "a metric called 'step'; that name is taken"),
            ("a vector metric", "(0.0, (s, {'v': jnp.zeros(3)}))", "'v', which must be a scalar"),
            ("a text metric", "(0.0, (s, {'v': 'x'}))", "'v', which must be a scalar, got 'x'"),
            (
                "a metric of None",
                "(0.0, (s, {'v': None}))",
                "'v', which must be a scalar, got None",
            ),
            (
                "raises",
                "1 / 0",
                "arm 'first', stage 'pre': experiments/mine.py, line 63, in <lambda",
            ),
            ("a concrete value", "float(p['heads']['y']['bias'][0])", "ConcretizationTypeError"),
        )
    },
    "a loss of two": ("inside", "mine(lambda a, b: 3)", "loss must be a function of 6 arguments"),
    **{
        f"schedule, {name}": (
            "inside",
            f"method = transfer.full(optax.sgd(lambda step: {returned}))",
            f"arm 'first', stage 'pre': {message}",
        )
        for name, returned, message in (
            ("None", "None", "TypeError: unsupported operand type(s)"),
            ("text", "'x'", "ValueError: could not convert string to float"),
            ("a vector", "jnp.zeros(7)", "TypeError: mul got incompatible shapes"),
            ("raises", "1 / 0", "experiments/mine.py, line 63, in <lambda>: ZeroDivisionError"),
        )
    },
    **{
        f"predict, {name}": (
            "inside",
            f"method = mine(supervised_loss, predict=lambda m, p, s, x: {returned})",
            message,
        )
        for name, returned, message in (
            ("a number", "3", "must return {'features': [n, features], 'logits'"),
            ("other outputs", "{'logits': {'y': x[:, :2]}}", "logits [n, 3] for head 'y', it ret"),
            ("raises", "x['a']", "arm 'first', stage 'pre': experiments/mine.py, line 63, in"),
        )
    },
    "a state that raises": (
        "inside",
        "method = mine(supervised_loss, state=lambda m, p, s, shape: 1 / 0)",
        "stage 'pre': experiments/mine.py, line 63, in <lambda>: ZeroDivisionError",
    ),
    # Evaluations and what decides.
    "evaluations in a list": ("inside", "evals = [own()]", "evals must be {name: an evaluation"),
    "an evaluation's slash": ("inside", "evals = {'a/b': own()}", "a name in evals must be text"),
    "a dataset for it": ("inside", "evals = {'t': blobs(1)}", "evals['t'] must be an evaluation"),
    "splits in it": (
        "inside",
        "own(dataset=data.digits())",
        "dataset must be a Dataset, got Splits",
    ),
    "its head": ("inside", "own(head=3)", "evaluation: head must be text, got 3"),
    "its column": ("inside", "own(column=None)", "evaluation: column must be text, got None"),
    "its arguments": ("inside", "own(sums=lambda x: x)", "sums must be a function of 3 arguments"),
    **{
        f"evaluation, {name}": (
            "inside",
            f"evals['own'] = own({function})",
            f"evaluation 'own': its metrics do not fit head 'y': {message}",
        )
        for name, function, message in (
            ("sums raise", "sums=lambda o, y, w: 1 / 0", "its sums: experiments/mine.py, line 63"),
            ("sums of text", "sums=lambda o, y, w: 'x'", "its sums (experiments/mine.py, line 63"),
            ("no sums", "sums=lambda o, y, w: w", "its sums (experiments/mine.py, line 63, in <la"),
            ("results raise", "results=lambda s: s['x']", "its results: experiments/mine.py, line"),
            (
                "a number",
                "results=lambda s: 3",
                "its results (experiments/mine.py, line 63, in <la",
            ),
            (
                "text",
                "results=lambda s: {'a': 'x'}",
                "its results (experiments/mine.py, line 63, i",
            ),
            ("a vector", "results=lambda s: {'a': np.ones(2)}", "its results (experiments/mine.py"),
            ("names", "results=lambda s: {str(s['hits']): 1.0}", "its results (experiments/mine"),
        )
    },
    "text for the metric": (
        "inside",
        "primary = 'test/accuracy'",
        "primary must be maximize('eval",
    ),
    "another direction": (
        "inside",
        "Metric('a', 'b', 'up')",
        "better must be 'max' or 'min', got",
    ),
    "evaluation and metric in one": (
        "inside",
        "primary = maximize('test/accuracy')",
        "mine.py, line 63, in build: write maximize('test', 'accuracy'), two names, not maximize(",
    ),
    "three names of a metric": (
        "inside",
        "primary = maximize('test', 'loss', 'mean')",
        "one name or two, as in maximize('evaluation', 'metric'), not 3",
    ),
    "a slash in the evaluation": (
        "inside",
        "primary = maximize('test/a', 'b')",
        "metric 'b': evaluation must be text without a slash, got 'test/a'",
    ),
    "text to select by": (
        "inside",
        "more['select'] = 'test/loss'",
        "select must be maximize('eval",
    ),
    "every 2.5 steps": ("inside", "more['select_every'] = 2.5", "select_every must be a whole num"),
    **{
        f"derived, {name}": ("inside", f"more['derived'] = {{'d': lambda m: {returned}}}", message)
        for name, returned, message in (
            (
                "text",
                "'x'",
                "derived metric 'd' (experiments/mine.py, line 63, in <lambda>): the val",
            ),
            ("None", "None", "the value must be a number, got None"),
            ("an array", "np.ones(2)", "the value must be a number, got an array float64[2]"),
            ("a claim", "m['test/loss'] > 1", "the value must be a number, got False"),
            ("raises", "m['test/loss'].mean()", "line 63, in <lambda>: AttributeError"),
        )
    },
    "derived as an evaluation's": (
        "inside",
        "more['derived'] = {'test/loss': lambda m: 1.0}",
        "derived metric 'test/loss': another number has that name",
    ),
    "derived as a step": (
        "inside",
        "more['derived'] = {'step': lambda m: 1.0}",
        "derived metric 'step': another number has that name",
    ),
    "no criterion": ("inside", "more['criteria'] = {'c': 3}", "criteria['c'] must be a Criterion"),
    **{
        f"criterion, {name}": (
            "inside",
            f"more['criteria'] = {{'c': Criterion(domains, lambda predict, seen: {returned})}}",
            message,
        )
        for name, returned, message in (
            (
                "a vector",
                "seen['logits']['y'].mean(0)",
                "must be a scalar, got an array float32[3]",
            ),
            (
                "text",
                "'x'",
                "criterion 'c': its score (experiments/mine.py, line 63, in <lambda>): it",
            ),
            (
                "raises",
                "1 / 0",
                "criterion 'c': its score: experiments/mine.py, line 63, in <lambda>",
            ),
        )
    },
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message_before_any_work(tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    where, statement, expected = mistake
    status, errors = launched(tmp_path, written(**{where: statement}))
    assert status == 1, errors
    assert errors.startswith("error: ") and errors.count("error: ") == 1, errors
    assert expected in errors, errors
    assert "Traceback" not in errors and "site-packages" not in errors and "jaxtl/" not in errors
    assert not [path for path in tmp_path.glob("runs/**/*") if path.is_file()]


CONFIGS = {
    "": "experiments/mine.py has no Config",
    "Config = None\n": "Config must be a dataclass",
    "class Config:\n    rate: float = 0.1\n": "Config must be a dataclass",
    f"{CONFIG}Config = Config()\n": "it is an instance",
    "Config = {'rate': 0.1}\n": "Config must be a dataclass",
    CONFIG.replace(" = 0.1", ""): "these fields of Config need defaults: rate",
    CONFIG.replace("float = 0.1", "list = []"): "line 20: ValueError: mutable default",
    CONFIG.replace("float", "'Unknown'"): "annotations of Config cannot be read: NameError",
    f"{CONFIG}    def __post_init__(self): 1 / 0\n": "in __post_init__: ZeroDivisionError",
}


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_that_is_none(tmp_path, monkeypatch, config):
    monkeypatch.chdir(tmp_path)
    text = written()
    assert CONFIG in text
    status, errors = launched(tmp_path, text.replace(CONFIG, config))
    assert status == 1 and errors.startswith("error: ") and CONFIGS[config] in errors, errors
    assert "Traceback" not in errors and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("build()", "build must be a function of the config: too many positional arguments"),
        ("build(config, more)", "build must be a function of the config: missing a required"),
        ("construct(config)", "experiments/mine.py has no build"),
    ],
)
def test_a_build_that_cannot_be_called(tmp_path, monkeypatch, signature, expected):
    monkeypatch.chdir(tmp_path)
    status, errors = launched(tmp_path, written().replace("build(config)", signature))
    assert status == 1 and expected in errors, errors


def test_the_calls_of_the_user_are_told_and_all_of_them_if_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = written(top="def rate(config):\n    return config.rates['a']", inside="rate(config)")
    status, errors = launched(tmp_path, text)
    assert errors == (
        "error: experiments/mine.py, line 54, in rate: AttributeError: 'Config' object has no "
        "attribute 'rates'\n"
        "  experiments/mine.py, line 64, in build: rate(config)\n"
        "  experiments/mine.py, line 54, in rate: return config.rates['a']\n"
    )
    status, errors = launched(tmp_path, text, "--verbose")
    assert status == 1 and "Traceback" in errors and "jaxtl/cli.py" in errors
    assert errors.splitlines()[-3].startswith("error: experiments/mine.py, line 54, in rate: ")


def test_what_is_wrong_with_several_arguments_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "batch_size, num_steps, domains = '8', None, 3"
    status, errors = launched(tmp_path, written(inside=code))
    assert status == 1 and errors.count("stage 'pre': ") == len(errors.splitlines()) == 3


def test_methods_that_do_not_fit_name_arm_and_stage_before_the_first_one_trains(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    methods = {
        "dann": "adapt.dann(tx, reversal=1.0)",
        "coral": "adapt.deep_coral(tx, weight=1.0)",
        "mcd": "adapt.mcd(tx)",
        "raises": "mine(lambda m, p, s, b, r, t: b['inputs']['x'])",
    }
    later = "".join(
        f"arms[{name!r}] = [stage, dataclasses.replace(stage, name={name!r}, method={method})]\n"
        for name, method in methods.items()
    )
    status, errors = launched(tmp_path, written(below=later))
    assert status == 1
    for name in methods:
        assert f"arm {name!r}" in errors and f"stage {name!r}" in errors, errors
    assert len(errors.splitlines()) <= len(methods)
    assert not [path for path in tmp_path.glob("runs/**/*") if path.is_file()]


def test_the_file_is_right_as_it_stands():
    assert "{top}" in FILE and "{" not in written().split("def build")[0].split('"""')[1]
