"""What an exported network gives, in words and names: classes, labels of yes or no, a number or grades.

A graph gives the predictions of the classifier. The weights for timm give the outputs of one network, which
are logits or a standardised number.
"""

from __future__ import annotations

from dataclasses import dataclass

from retfound_dist.config.schema import MULTICLASS
from retfound_dist.evaluate.classifier.classifier_file import ClassifierFile
from retfound_dist.evaluate.tasks.task_facts import MULTILABEL, ORDINAL, REGRESSION, facts_from_json

PROBABILITIES, NUMBERS = "probabilities", "numbers"
"""Names of a graph's output."""
_ANY_IMAGE = "also for an image that shows none of them, another organ or no scan at all"


@dataclass(frozen=True, kw_only=True)
class OutputWords:
    """Words on the outputs of one classifier."""

    summary: str
    """What it is, without a full stop."""
    use: str
    """What it answers, whatever it is given."""
    title: str
    """Heading of the table of outputs."""
    column: str
    """What an output stands for."""
    graph_output: str
    """Name of the graph's output."""
    graph_names: tuple[str, ...]
    graph_text: str
    """What the outputs of a graph are; empty for classes, whose temperature decides."""
    network_names: tuple[str, ...]
    """What each output of one network is."""
    network_text: str
    """How predictions are made of the outputs of one network."""
    network_kind: str
    """What the outputs of one network are, in short."""


def output_words(facts: ClassifierFile) -> OutputWords:
    """The words of a classifier, whose task is known."""
    names = tuple(facts.classes)
    scans = "of retinal OCT B-scans"
    if facts.task["kind"] == MULTICLASS:
        return OutputWords(
            summary=f"A classifier {scans} into {len(names)} classes",
            use=f"It gives a probability to each of its classes, {_ANY_IMAGE}.",
            title="Classes",
            column="class",
            graph_output=PROBABILITIES,
            graph_names=names,
            graph_text="",
            network_names=names,
            network_text="`softmax` makes probabilities of them",
            network_kind="logits",
        )
    task = facts_from_json(facts.task)
    if task.kind == MULTILABEL:
        return OutputWords(
            summary=f"A classifier {scans} with {len(names)} labels of yes or no",
            use=f"It gives a probability to each of its labels, {_ANY_IMAGE}.",
            title="Labels",
            column="label",
            graph_output=PROBABILITIES,
            graph_names=names,
            graph_text="The outputs are the probabilities of the labels, each from 0 to 1. They are not "
            "calibrated.",
            network_names=names,
            network_text="`sigmoid` makes a probability of each",
            network_kind="logits",
        )
    if task.kind == REGRESSION:
        return OutputWords(
            summary=f"A network that predicts a number {scans}: {task.targets[0]}",
            use="It gives a number to every image, also to one of another organ or to no scan at all.",
            title="Number",
            column="number",
            graph_output=NUMBERS,
            graph_names=names,
            graph_text="The output is the number, in the unit of the labelled set.",
            network_names=names,
            network_text=f"the number is {task.mean!r} + {task.std!r} * output",
            network_kind="standardised numbers",
        )
    assert task.kind == ORDINAL
    above = tuple(f"above {grade}" for grade in names[:-1])
    return OutputWords(
        summary=f"A network that grades retinal OCT B-scans by {task.targets[0]}, with {len(names)} grades",
        use=f"It gives a probability to each of its grades, {_ANY_IMAGE}.",
        title="Grades",
        column="grade",
        graph_output=PROBABILITIES,
        graph_names=names,
        graph_text="The outputs are the probabilities of the grades, from the lowest to the highest. They "
        "sum to 1 and are not calibrated. The predicted grade is their median.",
        network_names=above,
        network_text="`sigmoid` of output k gives the probability to be above grade k for an image that is "
        "at least of grade k (CORN)",
        network_kind="logits",
    )
