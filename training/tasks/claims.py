"""Claims with a verdict, made of questions and their answers.

A claim is a statement where a rule can make one of the question, else the question followed by the answer. The right
answer with its passage is supported; another answer of the same kind is refuted; either one with a passage that does
not tell is not enough information.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from evaluation.answers import normalize_answer
from training.retriever.data import Passage
from training.tasks.cases import NOT_ENOUGH, REFUTED, SUPPORTED, VERIFICATION, Case
from training.tasks.sources import Abstract, Known

DECISIONS = {"yes": SUPPORTED, "no": REFUTED, "maybe": NOT_ENOUGH}
_STATEMENT_RATIO = 0.7
_BE = r"is|was|are|were"
_FINITE = rf"{_BE}|has|have|had|can|could|will|would|may|might|must|won|wrote|became|led|owns|began|made|gave|took|said"
_PARTICIPLE = r"\w+ed|born|built|held|written|made|found|begun|won|sold|taken|known|given|sent|shown|set"
_PREPOSITIONS = ("in", "on", "at", "by", "from", "during", "after", "before", "since", "around", "near", "between")
_TIME_OR_PLACE = r"when|where|in (?:what|which) \w+|on what \w+"


def statement(question: str, answer: str) -> str | None:
    """The claim that ``answer`` answers ``question``, as a sentence; None where no rule fits."""
    asked = re.sub(r"\s+", " ", question).strip().rstrip("?. ")
    for pattern, form in _RULES:
        match = pattern.match(asked)
        if match:
            claim = form.format(*match.groups(), a=answer.rstrip("."), at=_placed(answer.rstrip(".")))
            return claim[0].upper() + claim[1:] + "."
    return None


def _placed(answer: str) -> str:
    return answer if answer.lower().startswith(_PREPOSITIONS) else f"in {answer}"


def _rule(pattern: str, form: str) -> tuple[re.Pattern[str], str]:
    return re.compile(pattern + "$", re.IGNORECASE), form


# In order: the first that fits is taken. {0}, {1}, … are the groups, {a} the answer, {at} the answer with "in".
_RULES = (
    _rule(rf"(?:{_TIME_OR_PLACE}) ({_BE}) (.+) ({_PARTICIPLE})", "{1} {0} {2} {at}"),
    _rule(rf"(?:{_TIME_OR_PLACE}) (?:did|does|do) (.+)", "{0} {at}"),
    _rule(rf"(?:what|who) ({_BE}) (.+) (called|named|known as)", "{1} {0} {2} {a}"),
    _rule(rf"(?:what|which) ({_BE}) ((?:the|a|an) .+)", "{1} {0} {a}"),
    _rule(r"who (?!did|does|do\b)(\w+ .+)", "{a} {0}"),
    _rule(rf"(?:what|which) (?:\w+ ){{1,3}}?({_FINITE}) (.+)", "{a} {0} {1}"),
    _rule(rf"how many ((?!.*\b(?:did|does|do)\b).+ (?:{_FINITE})\b.*)", "{a} {0}"),
    _rule(rf"what (?!{_BE}|did|does|do\b)(\w+(?:s|ed) .+)", "{a} {0}"),
)


class ClaimMaker:
    """Makes claims of ``known``; ``nearby`` gives, by question id, passages that look right and do not answer it."""

    def __init__(self, known: Sequence[Known], nearby: Mapping[str, Sequence[Passage]]) -> None:
        self._known, self._nearby = known, nearby
        self._answers: dict[str, list[str]] = defaultdict(list)
        for each in known:
            for place in _places(each.passage):
                self._answers[place].append(each.answer)

    def draw(self, known: Known, verdict: str, rng: random.Random) -> Case | None:
        """A claim about ``known`` with this verdict; None where there is no wrong answer or no such passage."""
        passage, answer = known.passage, known.answer
        if verdict == REFUTED or (verdict == NOT_ENOUGH and rng.random() < 0.5):
            wrong = self._wrong_answers(known)
            if not wrong:
                return None
            answer = rng.choice(wrong)
        if verdict == NOT_ENOUGH:
            near = self._nearby.get(known.id, ())
            if not near:
                return None
            passage = rng.choice(near)
        claim = statement(known.question, answer) if rng.random() < _STATEMENT_RATIO else None
        claim = claim or f"{known.question} {answer}"
        return Case(VERIFICATION, claim, verdict, passage.title, passage.text)

    def _wrong_answers(self, known: Known) -> list[str]:
        """Answers of the same kind to other questions: on the passage where there are any, else on the article."""
        right = normalize_answer(known.answer)
        for place in _places(known.passage):
            wrong = [
                each
                for each in self._answers[place]
                if _kind(each) == _kind(known.answer)
                and _differ(normalize_answer(each), right)
                and each.lower() not in known.question.lower()
            ]
            if wrong:
                return wrong
        return []


def _places(passage: Passage) -> Iterator[str]:
    yield passage.id
    if passage.title:
        yield f"{passage.id.split('-')[0]}:{passage.title}"


def _differ(one: str, other: str) -> bool:
    return bool(one) and bool(other) and one not in other and other not in one


def _kind(answer: str) -> str:
    if re.fullmatch(r"\D*\b[12]\d{3}\b\D*", answer):
        return "year"
    if re.search(r"\d", answer):
        return "number"
    words = [word for word in answer.split() if word.lower() not in ("a", "an", "the", "of", "and")]
    if words and all(word[0].isupper() for word in words):
        return "name"
    return "phrase" if len(words) > 2 else "word"


def abstract_claim(abstract: Abstract) -> Case:
    """A PubMedQA question as a claim: yes is supported, no refuted, maybe not enough information."""
    return Case(VERIFICATION, abstract.question, DECISIONS[abstract.decision], text=abstract.text)
