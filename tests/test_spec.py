"""Options, recipes and runs: equal runs are equal text, and whatever cannot be is refused in one line."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from thriftylib.cost import Cost, linear
from thriftylib.datasets.facts import DATASETS
from thriftylib.errors import SpecError, ThriftyError
from thriftylib.options import MethodOptions, NetworkOptions, Strict, find
from thriftylib.paths import results_dir
from thriftylib.schedules import Constant, OneCycle, Plateau, Steps
from thriftylib.spec import Augment, Data, Named, Recipe, Run, parse_seeds


class PlainOptions(NetworkOptions, network="test-plain"):
    """A network with an option of each type, and a width derived from a budget as ThriftyNet has it."""

    width: Annotated[int, Field(ge=1)] | None = None
    budget: Annotated[int, Field(ge=10)] | None = None
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    bias: bool = True
    places: tuple[int, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _one_of_two(self):
        if self.width is not None and self.budget is not None:
            raise SpecError(f"width = {self.width} and budget = {self.budget}: give only one of them")
        return self

    def resolve(self, image_shape, classes):
        width = self.width or (self.budget // 10 if self.budget else 4)
        return self.model_copy(update={"width": width, "budget": None})

    def cost(self, image_shape, classes):
        return Cost((linear("head", self.width, classes),))


class PlainMethod(MethodOptions, method="test-method"):
    strength: float = 0.1


RUN = {
    "network": {"name": "test-plain", "options": {"width": 3}},
    "data": {"name": "cifar10"},
    "recipe": {
        "name": "r",
        "epochs": 3,
        "batch_size": 100,
        "learning_rate": 0.1,
        "schedule": {"kind": "steps", "milestones": [1, 2]},
    },
}
# Of the run above. Should it ever change, no committed record would fit its run any more.
FIXED_ID = "c5a05c5b2ae8"


def changed(path: str, value) -> dict:
    """RUN with one value replaced."""
    content = json.loads(json.dumps(RUN))
    *parents, last = path.split(".")
    target = content
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = value
    return content


# --- strategies

positive = st.floats(1e-6, 1e6)
fraction = st.floats(0, 1, exclude_max=True)
schedules = st.one_of(
    st.builds(
        Plateau,
        monitor=st.sampled_from(["test_loss", "train_loss"]),
        factor=st.floats(0.01, 0.99),
        patience=st.integers(0, 50),
        min_learning_rate=st.floats(0, 1),
    ),
    st.builds(Steps, milestones=st.sets(st.integers(1, 99), min_size=1).map(lambda found: tuple(sorted(found)))),
    st.builds(OneCycle, warmup=fraction, anneal=st.sampled_from(["cosine", "linear"]), final_factor=fraction),
    st.builds(Constant),
)
augments = st.builds(
    Augment,
    crop=st.integers(0, 8),
    crop_padding=st.sampled_from(["zero", "reflect"]),
    flip=st.booleans(),
    autoaugment=st.booleans(),
    cutout=st.integers(0, 16),
    mixup=st.floats(0, 2),
)
recipes = st.builds(
    Recipe,
    name=st.text(string.ascii_lowercase, min_size=1),
    epochs=st.integers(100, 500),
    batch_size=st.integers(1, 1437),
    learning_rate=positive,
    momentum=st.floats(0.1, 0.99),
    nesterov=st.booleans(),
    weight_decay=st.floats(0, 1),
    weight_decay_on=st.sampled_from(["all", "weights"]),
    label_smoothing=fraction,
    schedule=schedules,
    augment=augments,
)
data = st.builds(Data, name=st.sampled_from(sorted(DATASETS)), label_noise=fraction)
options = st.fixed_dictionaries(
    {},
    optional={
        "width": st.integers(1, 500),
        "rate": st.floats(allow_nan=False, allow_infinity=False),
        "kind": st.sampled_from(["a", "b"]),
        "bias": st.booleans(),
        "places": st.lists(st.integers(0, 50)),
    },
)
networks = st.builds(Named, name=st.just("test-plain"), options=options)
methods = st.none() | st.builds(Named, name=st.just("test-method"), options=st.just({}))
runs = st.builds(Run, network=networks, data=data, recipe=recipes, seed=st.integers(0, 2**32 - 1), method=methods)


# --- equal runs are equal text


@settings(max_examples=60, deadline=None)
@given(runs)
def test_canonical_json_round_trip(run):
    text = run.canonical()
    for again in (Run.recorded(json.loads(text)), Run.model_validate(json.loads(text))):
        assert again == run
        assert again.canonical() == text
        assert again.id == run.id
        assert hash(again) == hash(run)
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text
    assert len(run.id) == 12
    assert set(run.id) <= set(string.hexdigits.lower())


@settings(max_examples=40, deadline=None)
@given(runs, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(run, random):
    def shuffled(value):
        if isinstance(value, dict):
            keys = random.sample(sorted(value), len(value))
            return {key: shuffled(value[key]) for key in keys}
        return value

    assert Run.model_validate(shuffled(run.model_dump(mode="json"))).id == run.id


@settings(max_examples=40, deadline=None)
@given(runs, st.integers(0, 2**32 - 1))
def test_the_seed_changes_the_id_but_not_the_configuration(run, seed):
    other = run.with_seed(seed)
    assert (other.id == run.id) == (seed == run.seed)
    assert other.configuration == run.configuration == run.with_seed(0).id


@settings(max_examples=40, deadline=None)
@given(runs, runs)
def test_different_runs_have_different_ids(one, other):
    assert (one == other) == (one.id == other.id)


def test_a_default_said_and_left_out_is_the_same_run():
    said = changed("network.options", {"width": 3, "rate": 0.5, "kind": "a", "bias": True, "places": []})
    said["recipe"]["momentum"] = 0.9
    said["seed"] = 0
    assert Run.model_validate(said).id == Run.model_validate(RUN).id
    assert (
        Run.model_validate(changed("recipe.learning_rate", 1)).id
        == Run.model_validate(changed("recipe.learning_rate", 1.0)).id
    )


def test_a_budget_is_stored_as_what_it_came_to():
    budget = Run.model_validate(changed("network.options", {"budget": 30}))
    assert budget.id == Run.model_validate(RUN).id
    assert budget.network.options["budget"] is None
    assert budget.options == PlainOptions(width=3)


def test_the_id_is_the_same_on_every_machine():
    assert Run.model_validate(RUN).id == FIXED_ID
    text = Run.model_validate(RUN).canonical()
    code = f"from thriftylib.spec import Run; import json, sys; print(Run.recorded(json.loads({text!r})).id)"
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == FIXED_ID


COMMITTED = sorted(results_dir().glob("runs/*.json"))


def test_no_committed_run_changes_its_id():
    assert COMMITTED
    for path in COMMITTED:
        written = json.loads(path.read_text("utf-8"))["run"]
        run = Run.recorded(written)
        assert run.id == path.stem
        assert json.loads(run.canonical()) == written


def test_a_schedule_is_read_under_its_old_name_and_written_so():
    old, new = OneCycle.model_validate({"final": 0.1}), OneCycle(final_factor=0.1)
    assert old == new
    assert new.model_dump()["final"] == 0.1
    assert (
        '"final":0.1' in Run.model_validate(changed("recipe.schedule", {"kind": "one-cycle", "final": 0.1})).canonical()
    )
    for wrong in ({"final": 1.0}, {"final_factor": 1.0}, {"final": 0.1, "final_factor": 0.1}):
        with pytest.raises(SpecError, match="OneCycle.*final"):
            OneCycle.model_validate(wrong)


def test_spec_imports_no_torch():
    code = "import sys, thriftylib.spec, thriftylib.options, thriftylib.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_everything_is_frozen():
    run = Run.model_validate(RUN)
    for frozen, field in ((run, "seed"), (run.recipe, "epochs"), (run.recipe.schedule, "factor"), (run.data, "name")):
        with pytest.raises(Exception, match="frozen"):
            setattr(frozen, field, 1)


# --- whatever cannot be is one line with the field, the value and what is allowed

FAULTS = [
    ("seed", -1, ["Run.seed = -1", "greater than or equal to 0"]),
    ("seed", 2**32, ["Run.seed = 4294967296", "less than"]),
    ("seed", 1.5, ["Run.seed = 1.5", "valid integer"]),
    ("seed", True, ["Run.seed = True", "valid integer"]),
    ("seed", "0", ["Run.seed = '0'", "valid integer"]),
    ("sed", 0, ["unknown key 'sed'", "did you mean 'seed'?"]),
    ("data.name", "cifar11", ["unknown data set 'cifar11'", "cifar10"]),
    ("data.name", 3, ["Data.name = 3", "valid string"]),
    ("data.train_images", 0, ["Data.train_images = 0", "greater than or equal to 1"]),
    ("data.train_images", 50_001, ["train_images = 50001", "cifar10 has 50000"]),
    ("data.test_images", 10_001, ["test_images = 10001", "cifar10 has 10000"]),
    ("data.validation_images", -1, ["Data.validation_images = -1", "greater than or equal to 0"]),
    ("data.validation_images", 50_000, ["validation_images = 50000", "leaves no training image"]),
    ("data.label_noise", 1.0, ["Data.label_noise = 1.0", "less than 1"]),
    ("data.images", 3, ["unknown key 'images'", "known:", "train_images"]),
    ("recipe.epochs", -1, ["Recipe.epochs = -1", "greater than or equal to 1"]),
    ("recipe.epochs", 0, ["Recipe.epochs = 0", "greater than or equal to 1"]),
    ("recipe.epochs", "ten", ["Recipe.epochs = 'ten'", "valid integer"]),
    ("recipe.epochs", None, ["Recipe.epochs = None", "valid integer"]),
    ("recipe.epochs", 2, ["milestones end at 2", "below epochs = 2"]),
    ("recipe.batch_size", 0, ["Recipe.batch_size = 0", "greater than or equal to 1"]),
    ("recipe.batch_size", 50_001, ["recipe.batch_size = 50001", "cifar10 has 50000 training images"]),
    ("recipe.learning_rate", 0, ["Recipe.learning_rate = 0", "greater than 0"]),
    ("recipe.learning_rate", float("nan"), ["Recipe.learning_rate = nan"]),
    ("recipe.learning_rate", float("inf"), ["Recipe.learning_rate = inf", "finite"]),
    ("recipe.momentum", 1.0, ["Recipe.momentum = 1.0", "less than 1"]),
    ("recipe.weight_decay", -1e-4, ["Recipe.weight_decay = -0.0001", "greater than or equal to 0"]),
    ("recipe.weight_decay_on", "bias", ["Recipe.weight_decay_on = 'bias'", "'all' or 'weights'"]),
    ("recipe.label_smoothing", 1, ["Recipe.label_smoothing = 1", "less than 1"]),
    ("recipe.nesterov", 1, ["Recipe.nesterov = 1", "valid boolean"]),
    ("recipe.optimizer", "adam", ["unknown key 'optimizer'", "known:"]),
    ("recipe.schedule", {"kind": "step"}, ["step", "'plateau', 'steps', 'one-cycle', 'constant'"]),
    ("recipe.schedule", {"kind": "steps"}, ["Steps.milestones", "is required"]),
    ("recipe.schedule", {"kind": "steps", "milestones": []}, ["Steps.milestones", "at least 1"]),
    ("recipe.schedule", {"kind": "steps", "milestones": [0]}, ["Steps.milestones", "greater than or equal to 1"]),
    ("recipe.schedule", {"kind": "steps", "milestones": [2, 1]}, ["milestones = [2, 1]", "rise strictly"]),
    ("recipe.schedule", {"kind": "steps", "milestones": [1, 1]}, ["milestones = [1, 1]", "rise strictly"]),
    ("recipe.schedule", {"kind": "plateau", "factor": 1.0}, ["Plateau.factor = 1.0", "less than 1"]),
    ("recipe.schedule", {"kind": "plateau", "patience": -1}, ["Plateau.patience = -1", "greater than or equal to 0"]),
    (
        "recipe.schedule",
        {"kind": "plateau", "monitor": "validation_loss"},
        ["validation_loss", "validation_images >= 1"],
    ),
    ("recipe.schedule", {"kind": "one-cycle", "warmup": 1.0}, ["OneCycle.warmup = 1.0", "less than 1"]),
    ("recipe.schedule", {"kind": "constant", "factor": 0.5}, ["Constant: unknown key 'factor'"]),
    ("recipe.augment", {"crop": -1}, ["Augment.crop = -1", "greater than or equal to 0"]),
    ("recipe.augment", {"mixup": 1.0, "cutmix": 1.0}, ["mixup = 1.0 and cutmix = 1.0", "only one"]),
    ("recipe.augment", {"cutout_defect": True}, ["cutout_defect = True", "cutout >= 1"]),
    ("recipe.augment", {"crop_padding": "mirror"}, ["Augment.crop_padding = 'mirror'", "'zero' or 'reflect'"]),
    ("network.name", "test-plan", ["unknown network 'test-plan'", "did you mean 'test-plain'?"]),
    ("network.options", {"width": 0}, ["PlainOptions.width = 0", "greater than or equal to 1"]),
    ("network.options", {"width": "3"}, ["PlainOptions.width = '3'", "valid integer"]),
    ("network.options", {"widht": 3}, ["PlainOptions: unknown key 'widht'", "did you mean 'width'?"]),
    ("network.options", {"kind": "c"}, ["PlainOptions.kind = 'c'", "'a' or 'b'"]),
    ("network.options", {"bias": "yes"}, ["PlainOptions.bias = 'yes'", "valid boolean"]),
    ("network.options", {"width": 3, "budget": 30}, ["width = 3 and budget = 30", "only one"]),
    ("network.options", [], ["Named.options = []", "dictionary"]),
    ("network.sizes", 1, ["Named: unknown key 'sizes'", "options"]),
    ("method", {"name": "test-methods"}, ["unknown method 'test-methods'", "did you mean 'test-method'?"]),
    ("method", {"name": "test-method", "options": {"strength": "big"}}, ["PlainMethod.strength = 'big'", "number"]),
    ("parent", 5, ["Run.parent = 5", "valid string"]),
]


@pytest.mark.parametrize(("path", "value", "words"), FAULTS, ids=[f"{path}={value}"[:50] for path, value, _ in FAULTS])
def test_faults(path, value, words):
    with pytest.raises(SpecError) as caught:
        Run.model_validate(changed(path, value))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_nesterov_needs_momentum():
    content = changed("recipe.nesterov", True)
    content["recipe"]["momentum"] = 0.0
    with pytest.raises(SpecError, match=r"nesterov = True needs momentum > 0"):
        Run.model_validate(content)


def test_batches_must_fit_what_is_left_for_training():
    content = changed("data", {"name": "digits", "train_images": 150, "validation_images": 51})
    with pytest.raises(SpecError, match="digits has 99 training images"):
        Run.model_validate(content)


@pytest.mark.parametrize("field", ["network", "data", "recipe"])
def test_what_a_run_needs(field):
    with pytest.raises(SpecError, match=rf"Run\.{field}: is required"):
        Run.model_validate({key: value for key, value in RUN.items() if key != field})


@pytest.mark.parametrize("content", [None, [], "run", 3])
def test_not_a_run(content):
    with pytest.raises(SpecError) as caught:
        Run.model_validate(content)
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(
        [*RUN, "data.name", *(f"recipe.{name}" for name in Recipe.model_fields), "seed", "method", "parent"]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ),
)
def test_any_value_is_either_taken_or_refused_in_one_line(path, value):
    content = json.loads(json.dumps(RUN))
    *parents, last = path.split(".")
    (content[parents[0]] if parents else content)[last] = value
    message = ""
    try:
        run = Run.model_validate(content)
    except ThriftyError as error:
        message = str(error)
    else:
        assert Run.model_validate(json.loads(run.canonical())) == run
    assert "\n" not in message


@settings(max_examples=60, deadline=None)
@given(st.text(string.ascii_lowercase, min_size=1).filter(lambda key: key not in Recipe.model_fields), st.integers())
def test_any_unknown_key_is_named(key, value):
    with pytest.raises(SpecError, match=f"Recipe: unknown key '{key}'"):
        Recipe.model_validate({**RUN["recipe"], key: value})


def test_recorded_runs_are_read_without_their_paper_but_not_unchecked():
    content = changed("network", {"name": "nobody-knows", "options": {"any": [1, 2]}})
    assert Run.recorded(content).network.name == "nobody-knows"
    with pytest.raises(SpecError, match="unknown network 'nobody-knows'"):
        Run.model_validate(content)
    with pytest.raises(SpecError, match=r"Recipe\.epochs = 0"):
        Run.recorded(changed("recipe.epochs", 0))


def test_strict_and_closed():
    class Small(Strict):
        number: float
        whole: int = 1

    assert Small(number=1).number == 1.0
    for wrong in ({"number": "1"}, {"number": True}, {"number": 1.0, "whole": 1.0}, {"numbr": 1.0, "number": 1.0}):
        with pytest.raises(SpecError):
            Small(**wrong)


@pytest.mark.parametrize("name", ["resolve", "cost"])
@pytest.mark.parametrize(
    ("shape", "classes", "words"),
    [
        ((32, 32), 10, r"image_shape = \(32, 32\): must be \(C, H, W\), whole numbers >= 1"),
        ((3, 0, 32), 10, r"image_shape = \(3, 0, 32\): must be"),
        (32, 10, "image_shape = 32: must be"),
        ((3, 32, 32), 0, "classes = 0: must be a whole number >= 1"),
        ((3, 32, 32), "10", "classes = '10': must be"),
        ((3, 32, 32), True, "classes = True: must be"),
    ],
)
def test_images_and_classes_that_cannot_be(name, shape, classes, words):
    with pytest.raises(SpecError, match=f"^{words}"):
        getattr(PlainOptions(width=3), name)(shape, classes)


def test_find():
    assert find(NetworkOptions, "test-plain") is PlainOptions
    assert find(MethodOptions, "test-method") is PlainMethod
    with pytest.raises(SpecError, match="unknown method"):
        find(MethodOptions, "test-plain")


# --- seeds


@given(st.lists(st.integers(0, 1000), min_size=1, unique=True))
def test_seeds_by_name(seeds):
    assert parse_seeds(",".join(map(str, seeds))) == seeds


@given(st.integers(0, 500), st.integers(0, 50))
def test_ranges_of_seeds(first, more):
    assert parse_seeds(f"{first}-{first + more}") == list(range(first, first + more + 1))


def test_mixed_seeds():
    assert parse_seeds("7, 0-2,5") == [7, 0, 1, 2, 5]
    assert parse_seeds(3) == [3]


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1.5", "0,0", "0-3,2", "²", "1-2-3"])
def test_wrong_seeds(text):
    with pytest.raises(SpecError, match="seeds = "):
        parse_seeds(text)
