"""The words that rules know: numbers, units, dates, opposites, questions, function words. Holds lists, decides nothing.

English, as users type it (small letters, no apostrophes). Other languages are recognised, not understood.
"""

from functools import lru_cache


def _words(text: str) -> list[str]:
    return text.split()


NUMBER_WORDS = {
    word: float(value)
    for value, word in enumerate(
        _words(
            "zero _ two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen"
        )
    )
    if word != "_"
} | {
    word: float(10 * tens)
    for tens, word in enumerate(_words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
"""`one` is not among them: it mostly is a pronoun."""

ORDINALS = {
    word: float(value) for value, word in enumerate(_words("third fourth fifth sixth seventh eighth ninth tenth"), 3)
}
"""`first` and `second` have opposites instead, since a second is also a time."""

MULTIPLIERS = {
    "hundred": 1e2, "thousand": 1e3, "k": 1e3, "lakh": 1e5, "lakhs": 1e5, "lac": 1e5, "million": 1e6, "millions": 1e6,
    "crore": 1e7, "crores": 1e7, "billion": 1e9, "billions": 1e9, "trillion": 1e12,
}  # fmt: skip

_UNITS = """
percent: % percentage
dollar: $ usd dollars bucks
rupee: rs inr rupees ₹
euro: € eur euros
pound: £ gbp pounds lb lbs
kilometre: km kms kilometer kilometers kilometres
metre: m meter meters metres
centimetre: cm cms centimeter centimeters centimetres
mile: miles
inch: inches
foot: ft feet
kilogram: kg kgs kilo kilos kilograms
gram: g grams gm gms
litre: l liter liters litres
second: s sec secs seconds
minute: min mins minutes
hour: h hr hrs hours
day: days
week: wk wks weeks
month: months
year: y yr yrs years
kilobyte: kb
megabyte: mb mbs
gigabyte: gb gbs gig gigs
terabyte: tb tbs
degree: ° degrees
watt: w watts
volt: v volts
"""

UNITS = {
    word: name
    for line in _UNITS.strip().splitlines()
    for name, _, others in [line.partition(": ")]
    for word in (name, *others.split())
}
"""How units are written, and the one name of each; looked up only right beside a number."""

MONTHS = {
    word: f"month {number}"
    for number, words in enumerate(
        (
            "january jan", "february feb", "march", "april apr", "may", "june jun", "july jul", "august aug",
            "september sep sept", "october oct", "november nov", "december dec",
        ),
        1,
    )
    for word in words.split()
}  # fmt: skip

DOUBTFUL_MONTHS = frozenset({"march", "may", "august"})
"""Months that are also other words: read as months only where they have a capital or stand beside a number."""

DAYS = {
    word: f"day {number}"
    for number, words in enumerate(
        ("monday", "tuesday tue tues", "wednesday", "thursday thu thurs", "friday fri", "saturday", "sunday"), 1
    )
    for word in words.split()
} | {word: word for word in ("today", "tomorrow", "yesterday", "tonight")}

NEGATIONS = frozenset(
    word.replace("'", "")
    for word in _words(
        "not no never without none nobody nothing neither nor cannot can't don't doesn't didn't won't isn't aren't "
        "wasn't weren't shouldn't couldn't wouldn't haven't hasn't hadn't ain't mustn't needn't"
    )
)
"""Words that turn a sentence round, apostrophes left out."""

_OPPOSITES = """
on off | enable disable | activate deactivate | increase decrease | increase reduce | raise lower | raise reduce
up down | best worst | better worse | good bad | before after | open close | start stop | begin end | add remove
add subtract | install uninstall | lock unlock | block unblock | buy sell | buyer seller | win lose | gain lose
gain loss | profit loss | find lose | love hate | like hate | like dislike | more less | more fewer | most least
maximum minimum | max min | high low | highest lowest | higher lower | long short | longest shortest | tall short
first last | first second | old new | old young | oldest youngest | hot cold | true false | right wrong | right left
pass fail | accept reject | accept decline | approve deny | allow forbid | allow deny | allow block
deposit withdraw | male female | man woman | men women | boy girl | boys girls | husband wife | boyfriend girlfriend
father mother | dad mom | brother sister | son daughter | uncle aunt | king queen | he she | his her
cheap expensive | fast slow | faster slower | early late | import export | upload download | send receive
borrow lend | push pull | positive negative | advantage disadvantage | pros cons | public private | rich poor
big small | large small | biggest smallest | largest smallest | inside outside | above below | north south
east west | northern southern | eastern western | day night | morning evening | online offline | mute unmute
freeze unfreeze | subscribe unsubscribe | login logout | signin signout | follow unfollow | encrypt decrypt
upgrade downgrade | connect disconnect | arrive depart | arrival departure | give take | teach learn | save spend
save delete | create delete | import delete | debit credit | attack defend | democrat republican
liberal conservative | easy hard | easy difficult | strong weak | strength weakness | strengths weaknesses
heavy light | dark light | wet dry | full empty | always never | everyone nobody | show hide | expand collapse
include exclude | attach detach | mount unmount | zoom unzoom | alive dead | life death | live die | war peace
hire fire | ascending descending | input output | internal external | indoor outdoor | major minor | senior junior
teacher student | parent child | employer employee | introvert extrovert | legal illegal | possible impossible
safe dangerous | same different | agree disagree | appear disappear | able unable
"""

_FUNCTION_WORDS = """
a an the i you he she it we they me him her us them my your his its our their mine yours this that these those there
here is are was were be been being am do does did done doing have has had having can could will would shall should
may might must of in on at to from by for with about into onto over under between through during as than and or but
if so because while what which who whom whose when where why how whether not no any some all each every much many
more most very really just also too only even still ever get gets got s t d ll m re ve one ones oneself myself
yourself someone anyone something anything everything people person thing things way ways like want need know
"""

_ASKING = {word: word for word in ("who", "when", "where", "why", "how", "what")} | {"whom": "who", "which": "what"}
QUESTIONS = _ASKING | {"whose": "who"} | {f"{word}s": kind for word, kind in _ASKING.items()}
"""Question words and their kind, also with an `is` run on; `which` asks as `what` does."""

MEASURES = frozenset(_words("many much long old far often big tall fast high deep soon large"))
"""Words that make `how` ask for a quantity."""

YES_OR_NO = frozenset(_words("is are was were do does did can could should would will has have had may must shall"))
"""What a question begins with whose answer is yes or no."""

CONNECTORS = frozenset(_words("to into than from over against"))
"""Words between two things that may not change places."""

_LANGUAGES = """
english: the is are what how do does to of and in for you can my i it with
german: der die das und wie ich ein eine nicht zu mit auf kann wo warum für mein von
french: le la les est et comment je un une des que pour dans pourquoi quel quelle vous mon
spanish: el los las es y cómo como una que por para dónde qué mi cuál puedo del
italian: il gli è e come un una che per dove perché mio di sono posso della
portuguese: o os é e como um uma que por para onde não posso são da do
dutch: de het een is en hoe ik niet van voor met waarom mijn kan wat waar
"""

LANGUAGES = {
    name: frozenset(words.split())
    for name, _, words in (line.partition(": ") for line in _LANGUAGES.strip().splitlines())
}
"""Frequent words of languages in Latin script, to tell these apart."""


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return a word without its common English endings: `enabled`, `enables` and `enabling` become `enabl`.

    Cuts -s, -es, -ed, -ing and a last -e, makes -ies to -y, and one of a doubled consonant where an ending was
    cut. Crude, on purpose: it only has to give forms of one word the same name.

    Args:
        word: Small letters.
    """
    if len(word) <= 3:
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending, shortest in (("ing", 6), ("ed", 5)):
        if word.endswith(ending) and len(word) >= shortest:
            word = _without_double(word[: -len(ending)])
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _without_double(word: str) -> str:
    doubled = len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeioulsz"
    return word[:-1] if doubled else word


FUNCTION_WORDS = frozenset(stem(word) for word in _FUNCTION_WORDS.split())
"""Stems that carry little of a question's subject."""


def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for pair in _OPPOSITES.replace("\n", "|").split("|"):
        if pair.strip():
            one, other = (stem(word) for word in pair.split())
            found.setdefault(one, set()).add(other)
            found.setdefault(other, set()).add(one)
    return {word: frozenset(others) for word, others in found.items()}


OPPOSITES = _opposites()
"""Stem -> stems that mean the contrary; symmetric. A prefix makes others: see `are_opposites`."""

_SHORTEST_AFTER = {"un": 4, "dis": 6, "non": 6, "in": 6, "im": 6, "il": 6, "ir": 6}
"""A prefix that makes a contrary, and the letters a stem needs behind it: `come` and `income` are none."""

_PREFIXES = tuple(_SHORTEST_AFTER)


def contraries(ones: frozenset[str], others: frozenset[str]) -> int:
    """Return how many pairs of stems, one from each set, mean contraries: by the list, or by a prefix. Symmetric."""
    listed = sum(len(OPPOSITES[word] & others) for word in ones if word in OPPOSITES)
    return listed + _prefixed(ones, others) + _prefixed(others, ones)


def _prefixed(long: frozenset[str], short: frozenset[str]) -> int:
    return sum(
        word.startswith(prefix)
        and len(word) - len(prefix) >= shortest
        and word[len(prefix) :] in short
        and word[len(prefix) :] not in OPPOSITES.get(word, ())
        for word in long
        if word.startswith(_PREFIXES)  # few do
        for prefix, shortest in _SHORTEST_AFTER.items()
    )
