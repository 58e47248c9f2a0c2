"""Dialogues to learn query rewriting from: a question loses what the turns before it already named.

The questions of one passage, in their order, are the turns. A mention that an earlier turn has, too, is replaced by a
pronoun or left out; the question as it was is what the rewriter must give back.
"""

import random
import re
from collections.abc import Sequence

from gateway.prompts import Turn
from training.tasks.cases import REWRITING, Case
from training.tasks.sources import Known

MAX_EARLIER = 3
_ALREADY_CLEAR_RATIO = 0.15
_OMIT_RATIO = 0.5
_MAX_MENTION_WORDS = 6
_MIN_WORDS_LEFT = 3


def _words(text: str) -> set[str]:
    return set(text.split())


_DETERMINERS = _words("the a an this that these those")
_PREPOSITIONS = _words("of in at for from by with on about to into during")
_ASKING_VERBS = _words("did does do is was are were has have had can could will would may might must should")
_FUNCTION_WORDS = (
    _DETERMINERS
    | _PREPOSITIONS
    | _ASKING_VERBS
    | _words(
        "what who whom whose which when where why how be been being and or but not as it its he his him she her they"
        " their them there than many much more most"
    )
)
# Said of anything: sharing one of them does not make a question hang on an earlier one.
_GENERAL = _words(
    "year years name names time number people person type kind part first many called used known author reviewer"
    " customer writer poster user buyer shopper owner narrator op i"
)
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")


def mention_in(question: str, earlier: str) -> tuple[int, int] | None:
    """Characters of the longest thing that ``question`` names and ``earlier`` named already, determiner included."""
    words = list(_WORD.finditer(question))
    spoken = f" {' '.join(_folded(word) for word in _WORD.findall(earlier))} "
    for length in range(min(_MAX_MENTION_WORDS, len(words) - 2), 0, -1):
        for first in range(1, len(words) - length + 1):
            chosen = [word.group() for word in words[first : first + length]]
            said = f" {' '.join(_folded(word) for word in chosen)} "
            if said in spoken and _is_name([word.group() for word in words], first, first + length):
                has_determiner = first > 1 and words[first - 1].group().lower() in _DETERMINERS
                end = words[first + length - 1].end()
                owner = len(chosen[-1]) - len(_folded(chosen[-1]))
                return words[first - 1 if has_determiner else first].start(), end - owner
    return None


def _folded(word: str) -> str:
    """In lower case, without the owner's 's."""
    return re.sub(r"['’]s$", "", word.lower())


def _is_name(words: Sequence[str], first: int, last: int) -> bool:
    """Whether ``words[first:last]`` name a thing, as far as words alone can tell; "the" and capitals speak for it."""
    lowered = [word.lower() for word in words]
    named = lowered[first:last]
    if named[0] in _FUNCTION_WORDS or named[-1] in _FUNCTION_WORDS or set(named) <= _GENERAL | _FUNCTION_WORDS:
        return False
    is_definite = lowered[first - 1] in _DETERMINERS
    is_asked = lowered[first - 1 - is_definite] in _ASKING_VERBS  # Then it is the subject, and a verb follows.
    follower = lowered[last] if last < len(lowered) else "of"
    has_capital = any(word[0].isupper() for word in words[first:last])
    is_cut = has_capital and last < len(words) and words[last][0].isupper()
    ends = is_asked or follower in _FUNCTION_WORDS or follower.endswith("ed")
    is_whole = not is_cut and (ends or named[-1].endswith(("'s", "’s")))
    stands_alone = is_definite or (len(named) > 1 and lowered[first - 1] in _PREPOSITIONS)
    return is_whole and (has_capital or stands_alone)


def shortened(question: str, earlier: str, passage: str, rng: random.Random) -> str | None:
    """``question`` as one asks it after ``earlier``; None where nothing can be left unsaid."""
    place = mention_in(question, earlier)
    if place is None:
        return None
    before, mention, after = question[: place[0]], question[slice(*place)], question[place[1] :]
    preposition = re.search(r"(\w+)\s+$", before)
    follows = preposition is not None and preposition.group(1).lower() in _PREPOSITIONS
    if re.match(r"['’]s", after):
        short = f"{before}{_pronoun(mention, passage, 2)}{after[2:]}"
    elif follows and preposition is not None and rng.random() < _OMIT_RATIO:
        short = _without_phrase(before[: preposition.start()].rstrip(), mention, after, passage, rng)
    else:
        is_object = follows or not re.search(r"\w", after)
        is_place = follows and preposition is not None and preposition.group(1).lower() in ("in", "at")
        short = f"{before}{_pronoun(mention, '' if is_place else passage, 1 if is_object else 0)}{after}"
    return short if len(short.split()) >= _MIN_WORDS_LEFT and short != question else None


def _without_phrase(before: str, mention: str, after: str, passage: str, rng: random.Random) -> str:
    """Drops "of the school"; or says "its name" for "the name of the school"."""
    owned = re.search(r"\bthe ([\w-]+(?: [\w-]+)?)$", before)
    if owned and rng.random() < 0.5:
        return f"{before[: owned.start()]}{_pronoun(mention, passage, 2)} {owned.group(1)}{after}"
    return before + after


def _pronoun(mention: str, passage: str, form: int) -> str:
    """``form`` 0 is for a subject, 1 an object, 2 an owner; who the mention is, the passage's own pronouns tell."""
    last = mention.split()[-1]
    if last.islower() and last.endswith("s") and not last.endswith("ss"):
        return ("they", "them", "their")[form]
    said = [word.lower() for word in re.findall(r"\w+", passage)]
    he, she = (sum(said.count(word) for word in words) for words in (("he", "his", "him"), ("she", "her", "hers")))
    if mention[0].isupper() and max(he, she) > said.count("it") + said.count("its"):
        return ("he", "him", "his")[form] if he >= she else ("she", "her", "her")[form]
    return ("it", "it", "its")[form]


def dialogue(turns: Sequence[Known], number: int, rng: random.Random) -> Case | None:
    """The rewriting of turn ``number`` (from 1) after up to three turns before it, answered; None if it needs none.

    One time in seven it comes as it was, to be left alone. Earlier turns are shortened, too, the first excepted.
    """
    current = turns[number]
    history: list[Turn] = []
    for each in turns[max(0, number - MAX_EARLIER) : number]:
        short = shortened(each.question, _said(history), each.passage.text, rng)
        history += [Turn("user", short or each.question), Turn("assistant", each.answer)]
    short = shortened(current.question, _said(history), current.passage.text, rng)
    if short is None:
        return None
    asked = current.question if rng.random() < _ALREADY_CLEAR_RATIO else short
    return Case(REWRITING, asked, current.question, history=tuple(history))


def _said(history: Sequence[Turn]) -> str:
    return " ".join(turn.text for turn in history)
