"""A small English-Indonesian grammar: sentences with their translations, and words to put into them.

Indonesian puts the adjective, the owner and "this" or "that" after the noun, says how many with a counting word that
depends on what is counted (a person, an animal, a thing), and does not inflect its verbs.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

COUNTERS = {"person": "seorang", "animal": "seekor", "thing": "sebuah"}
_NOUNS = {
    "person": (
        "teacher guru, farmer petani, doctor dokter, child anak, neighbour tetangga, king raja, fisherman nelayan,"
        " soldier tentara, singer penyanyi, student murid, thief pencuri, guest tamu, driver sopir, merchant pedagang"
    ),
    "animal": (
        "dog anjing, cat kucing, bird burung, horse kuda, fish ikan, goat kambing, monkey monyet, duck bebek,"
        " elephant gajah, buffalo kerbau, rabbit kelinci, snake ular, tiger harimau, turtle penyu"
    ),
    "thing": (
        "house rumah, book buku, table meja, chair kursi, boat perahu, letter surat, river sungai, garden kebun,"
        " door pintu, market pasar, bicycle sepeda, mountain gunung, knife pisau, window jendela, lamp lampu,"
        " umbrella payung, bridge jembatan, basket keranjang, shirt baju, drum gendang, kite layangan, island pulau"
    ),
}
_ADJECTIVES = (
    "big besar, small kecil, old tua, new baru, red merah, white putih, black hitam, good baik, tall tinggi,"
    " beautiful indah, clean bersih, dirty kotor, heavy berat, strong kuat, yellow kuning, quiet tenang"
)
_LISTED_VERBS = (
    "see sees melihat, buy buys membeli, carry carries membawa, find finds menemukan, draw draws menggambar,"
    " wash washes mencuci, sell sells menjual, hide hides menyembunyikan, like likes menyukai,"
    " follow follows mengikuti, clean cleans membersihkan, guard guards menjaga"
)
_PLACES = "in di, under di bawah, near di dekat, behind di belakang, in front of di depan"
_OWNERS = {"my": "saya", "your": "kamu", "her": "dia", "our": "kami"}
_POINTERS = {"the": "itu", "this": "ini", "that": "itu"}
_MODALS = {"will": "akan", "can": "dapat", "must": "harus"}
# Never in a sentence to train on: a translation of them can come from the memory alone.
HELD_OUT = {
    "thief", "guest", "driver", "merchant", "snake", "tiger", "turtle", "buffalo", "lamp", "umbrella", "bridge",
    "basket", "kite", "island", "heavy", "quiet",
}  # fmt: skip
_ONSETS, _VOWELS = "bdfghjklmnprstw", "aeiou"


@dataclass(frozen=True, slots=True)
class Word:
    """An English word with its translation; ``kind`` is what a noun names, or "adjective"."""

    english: str
    indonesian: str
    kind: str

    @property
    def entry(self) -> "Pair":
        """The word as a translation memory has it: a noun with its counting word."""
        if self.kind not in COUNTERS:
            return Pair(self.english, self.indonesian)
        return Pair(f"{_article(self.english)} {self.english}", f"{COUNTERS[self.kind]} {self.indonesian}")


@dataclass(frozen=True, slots=True)
class Pair:
    """An English text and its Indonesian translation."""

    english: str
    indonesian: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its translation, and the words of ``WORDS`` (or made-up ones) in it."""

    pair: Pair
    words: tuple[Word, ...]


def _split(listed: str) -> list[list[str]]:
    return [each.split() for each in listed.split(",")]


WORDS = tuple(
    Word(english, indonesian, kind)
    for kind, listed in {**_NOUNS, "adjective": _ADJECTIVES}.items()
    for english, indonesian in _split(listed)
)


# As "they see", as "she sees", in Indonesian.
VERBS = tuple((base, third, indonesian) for base, third, indonesian in _split(_LISTED_VERBS))


def sentence(words: Sequence[Word], rng: random.Random) -> Sentence:
    """A random sentence over these nouns and adjectives, and the verbs and small words of the grammar."""
    used: list[Word] = []
    subject, object_ = _phrase(words, used, rng), _phrase(words, used, rng)
    base, third, verb = rng.choice(VERBS)
    english, indonesian = third, verb
    form = rng.random()
    if form < 0.3:
        modal = rng.choice(list(_MODALS))
        english, indonesian = f"{modal} {base}", f"{_MODALS[modal]} {verb}"
    elif form < 0.5:
        english, indonesian = f"does not {base}", f"tidak {verb}"
    parts = [(subject.english, subject.indonesian), (english, indonesian), (object_.english, object_.indonesian)]
    if rng.random() < 0.4:
        where, place = _place(rng), _phrase(words, used, rng)
        parts.append((f"{where.english} {place.english}", f"{where.indonesian} {place.indonesian}"))
    pair = Pair(" ".join(part[0] for part in parts), " ".join(part[1] for part in parts))
    return Sentence(pair, tuple(dict.fromkeys(used)))


def _place(rng: random.Random) -> Pair:
    listed = rng.choice(_PLACES.split(", "))
    at = listed.index(" di")
    return Pair(listed[:at], listed[at + 1 :])


def _phrase(words: Sequence[Word], used: list[Word], rng: random.Random) -> Pair:
    """A noun with its determiner, perhaps with an adjective; takes down the words in ``used``."""
    noun = rng.choice([word for word in words if word.kind in COUNTERS])
    adjective = rng.choice([word for word in words if word.kind == "adjective"]) if rng.random() < 0.4 else None
    used.extend(filter(None, (noun, adjective)))
    english = f"{adjective.english} {noun.english}" if adjective else noun.english
    indonesian = f"{noun.indonesian} {adjective.indonesian}" if adjective else noun.indonesian
    form = rng.random()
    if form < 0.35:
        return Pair(f"{_article(english)} {english}", f"{COUNTERS[noun.kind]} {indonesian}")
    after = _OWNERS if form < 0.6 else _POINTERS
    determiner = rng.choice(list(after))
    return Pair(f"{determiner} {english}", f"{indonesian} {after[determiner]}")


def _article(english: str) -> str:
    return "an" if english[0] in "aeiou" else "a"


def made_up(word: Word, rng: random.Random) -> Word:
    """A word of the same kind that no one knows: what teaches a translator to look into its memory."""

    def syllables(count: int) -> str:
        return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(count))

    english, indonesian = syllables(2) + rng.choice(_ONSETS), syllables(rng.choice((2, 3)))
    if any(each.indonesian == indonesian for each in WORDS):
        return made_up(word, rng)
    return replace(word, english=english, indonesian=indonesian)
