"""Answers that use lmcourse's own version are found, whatever way they take to it."""

import functools
import importlib
import math

import numpy as np
import pytest

import lmcourse.core
from lmcourse import core
from lmcourse.core import LanguageModel, perplexity
from lmcourse.grading.shortcuts import find_shortcuts

alias = lmcourse.core.perplexity
by_name = {"perplexity": perplexity}
scores = core.Score(1.0, 2)


def through_an_alias(model, documents):
    return alias(model, documents)


def through_attributes(model, documents):
    return lmcourse.core.perplexity(model, documents)


def through_an_import_inside(model, documents):
    from lmcourse.core import perplexity as p

    return p(model, documents)


def through_a_module_imported_inside(model, documents):
    import lmcourse.core as c

    return c.perplexity(model, documents)


def through_a_name_for_the_module(model, documents):
    c = core
    return c.perplexity(model, documents)


def through_a_lambda(model, documents):
    import lmcourse.core

    return (lambda: lmcourse.core.perplexity(model, documents))()


def through_a_comprehension(model, documents):
    return [perplexity(model, [document]) for document in documents]


def through_a_helper(model, documents):
    return math.exp(math.log(through_attributes(model, documents)))


def through_a_dictionary(model, documents):
    return by_name["perplexity"](model, documents)


def through_a_default(model, documents, measure=perplexity):
    return measure(model, documents)


@functools.lru_cache
def through_a_cache(model, documents):
    return perplexity(model, documents)


def make_closure(measure):
    def through_a_closure(model, documents):
        return measure(model, documents)

    return through_a_closure


class ThroughAMethod:
    def __call__(self, model, documents):
        return core.perplexity(model, documents)


@pytest.mark.parametrize(
    "answer",
    [
        through_an_alias,
        through_attributes,
        through_an_import_inside,
        through_a_module_imported_inside,
        through_a_name_for_the_module,
        through_a_lambda,
        through_a_comprehension,
        through_a_helper,
        through_a_dictionary,
        through_a_default,
        through_a_cache,
        make_closure(perplexity),
        ThroughAMethod,
        functools.partial(perplexity),
        perplexity,
    ],
)
def test_every_way_to_the_courses_function_is_found(answer):
    assert [shortcut.uses for shortcut in find_shortcuts("answer", answer)] == ["lmcourse.core.perplexity"]


def computed_name(model, documents):
    return getattr(core, "perp" + "lexity")(model, documents)


def imported_by_its_name(model, documents):
    return importlib.import_module("lmcourse.core").perplexity(model, documents)


@pytest.mark.parametrize("answer", [computed_name, imported_by_its_name])
def test_a_name_that_is_computed_is_reported_as_the_module(answer):
    assert [shortcut.uses for shortcut in find_shortcuts("answer", answer)] == ["lmcourse.core"]


def test_an_object_of_the_course_in_the_notebook_is_reported_as_its_class():
    def answer(model):
        return scores.perplexity

    assert [shortcut.uses for shortcut in find_shortcuts("answer", answer)] == ["lmcourse.core.Score"]


class Model(LanguageModel):
    def token_log_probs(self, ids, mask=None):
        return np.zeros(np.shape(ids))


def own_variable(values):
    perplexity = np.exp(np.mean(values))

    def inner():
        return perplexity

    return inner()


def own_parameter(core, perplexity):
    return perplexity(core)


def only_numbers_of_the_course(nats):
    return nats / core.NATS_PER_BIT


def name_in_a_text(nats):
    """Compute what lmcourse.core.perplexity does."""
    raise ValueError("see lmcourse.core.perplexity")


@pytest.mark.parametrize(
    "answer", [own_variable, own_parameter, only_numbers_of_the_course, name_in_a_text, 7]
)
def test_an_answer_of_ones_own_is_not_accused(answer):
    assert find_shortcuts("answer", answer) == []


@pytest.mark.parametrize("allowed", ["lmcourse.core.LanguageModel", "lmcourse.core", "lmcourse"])
def test_what_the_exercise_allows_is_not_reported(allowed):
    assert [shortcut.uses for shortcut in find_shortcuts("Model", Model)] == ["lmcourse.core.LanguageModel"]
    assert find_shortcuts("Model", Model, allow=(allowed,)) == []


def test_allowing_a_name_does_not_allow_what_merely_begins_like_it():
    assert find_shortcuts("answer", through_attributes, allow=("lmcourse.core.perp", "lmcourse.co"))


def test_the_line_is_told():
    shortcut = find_shortcuts("answer", through_attributes)[0]
    assert shortcut.line == through_attributes.__code__.co_firstlineno + 1
    assert shortcut.source == "return lmcourse.core.perplexity(model, documents)"


def test_functions_that_call_each_other_are_read_once():
    namespace = {"core": core}
    exec("def f(): return g()\ndef g(): return f() or core.score", namespace)
    assert [shortcut.uses for shortcut in find_shortcuts("f", namespace["f"])] == ["lmcourse.core.score"]
