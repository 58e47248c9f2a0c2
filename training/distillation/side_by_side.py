"""A teacher's and a student's numbers, and how they compare."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rich.console import Console
from rich.table import Table

from evaluation.estimates import Estimate, bootstrap

Pairs: TypeAlias = list[list[float]]
"""Values of the teacher and of the student."""


@dataclass(frozen=True, slots=True)
class Line:
    """A number of both; ``change`` is that of the student's mean, question by question, where it is one."""

    name: str
    unit: str
    teacher: float
    student: float
    change: Estimate | None = None

    @classmethod
    def of(cls, name: str, unit: str, values: Iterable[float]) -> "Line":
        """The teacher's value and the student's."""
        teacher, student = values
        return cls(name, unit, teacher, student)

    @classmethod
    def paired(cls, name: str, unit: str, values: Sequence[Sequence[float]]) -> "Line":
        """Means of the teacher's and the student's values over the same questions."""
        teacher, student = values
        change = bootstrap([mine - theirs for theirs, mine in zip(teacher, student, strict=True)])
        return cls(name, unit, sum(teacher) / len(teacher), sum(student) / len(student), change)


def show(lines: Sequence[Line], console: Console) -> None:
    """Prints the table: differences of quality with their intervals, ratios of size and time."""
    table = Table("", "teacher", "student", "student against teacher", title="Distillation")
    for line in lines:
        against = f"{line.student / line.teacher:.2f} × (1 / {line.teacher / line.student:.2f})"
        if line.change is not None:
            change = line.change
            against = f"{change.value:+.1f} ({change.low:+.1f} to {change.high:+.1f})"
        values = (f"{value:,.1f} {line.unit}" for value in (line.teacher, line.student))
        table.add_row(line.name, *values, against)
    console.print(table)
