"""Facts that models of English know: capitals, languages, chemical symbols, continents, young animals, opposites."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicRelation:
    """Sentences that end in the value, with `{s}` for the subject; and subject → value."""

    wordings: tuple[str, ...]
    values: dict[str, str]


def _table(text: str) -> dict[str, str]:
    """Read `subject: value` items that commas separate."""
    items = [item.split(":") for item in text.split(",")]
    return {subject.strip(): value.strip() for subject, value in items}


CAPITALS = _table(
    "France: Paris, Germany: Berlin, Italy: Rome, Spain: Madrid, Portugal: Lisbon, Greece: Athens, Austria: Vienna, "
    "Hungary: Budapest, Poland: Warsaw, Ireland: Dublin, Norway: Oslo, Sweden: Stockholm, Denmark: Copenhagen, "
    "Finland: Helsinki, Russia: Moscow, Belgium: Brussels, Romania: Bucharest, Bulgaria: Sofia, "
    "Serbia: Belgrade, Croatia: Zagreb, Iceland: Reykjavik, Turkey: Ankara, Egypt: Cairo, Kenya: Nairobi, "
    "Ethiopia: Addis Ababa, Morocco: Rabat, Algeria: Algiers, Libya: Tripoli, Ghana: Accra, Senegal: Dakar, "
    "Japan: Tokyo, China: Beijing, Thailand: Bangkok, Vietnam: Hanoi, India: New Delhi, Pakistan: Islamabad, "
    "Nepal: Kathmandu, Iran: Tehran, Iraq: Baghdad, Syria: Damascus, Lebanon: Beirut, Afghanistan: Kabul, "
    "Canada: Ottawa, Cuba: Havana, Peru: Lima, Chile: Santiago, Argentina: Buenos Aires, Venezuela: Caracas, "
    "Colombia: Bogota, Australia: Canberra, Taiwan: Taipei, Qatar: Doha, Jordan: Amman"
)
LANGUAGES = _table(
    "France: French, Germany: German, Italy: Italian, Spain: Spanish, Portugal: Portuguese, Greece: Greek, "
    "Hungary: Hungarian, Poland: Polish, Sweden: Swedish, Denmark: Danish, Norway: Norwegian, Russia: Russian, "
    "Romania: Romanian, Bulgaria: Bulgarian, Turkey: Turkish, Egypt: Arabic, Japan: Japanese, China: Chinese, "
    "Korea: Korean, Thailand: Thai, Vietnam: Vietnamese, Mexico: Spanish, Brazil: Portuguese, Austria: German, "
    "England: English, Iraq: Arabic, Argentina: Spanish, Chile: Spanish, Australia: English"
)
SYMBOLS = _table(
    "gold: Au, silver: Ag, iron: Fe, copper: Cu, lead: Pb, tin: Sn, zinc: Zn, mercury: Hg, sodium: Na, potassium: K, "
    "calcium: Ca, magnesium: Mg, lithium: Li, carbon: C, oxygen: O, hydrogen: H, nitrogen: N, helium: He, neon: Ne, "
    "chlorine: Cl, iodine: I, phosphorus: P, silicon: Si, uranium: U, nickel: Ni, cobalt: Co, platinum: Pt, "
    "tungsten: W, titanium: Ti, barium: Ba, radium: Ra, argon: Ar"
)
CONTINENTS = _table(
    "France: Europe, Germany: Europe, Poland: Europe, Sweden: Europe, Japan: Asia, China: Asia, India: Asia, "
    "Thailand: Asia, Vietnam: Asia, Nepal: Asia, Kenya: Africa, Nigeria: Africa, Ghana: Africa, Algeria: Africa, "
    "Morocco: Africa, Portugal: Europe"
)
YOUNG = _table(
    "dog: puppy, cat: kitten, cow: calf, sheep: lamb, horse: foal, bear: cub, goat: kid, deer: fawn, duck: duckling, "
    "swan: cygnet, pig: piglet, frog: tadpole"
)
OPPOSITES = _table(
    "hot: cold, big: small, up: down, black: white, day: night, old: young, wet: dry, rich: poor, fast: slow, "
    "high: low, hard: soft, left: right, good: bad, early: late, empty: full, open: closed, strong: weak, true: false"
)

RELATIONS: dict[str, PublicRelation] = {
    "capital": PublicRelation(("The capital of {s} is", "The capital city of {s} is called"), CAPITALS),
    "language": PublicRelation(
        ("The main language of {s} is", "The language that most people in {s} speak is"), LANGUAGES
    ),
    "symbol": PublicRelation(("The chemical symbol of {s} is", "In chemistry, the symbol for {s} is"), SYMBOLS),
    "continent": PublicRelation(("The country of {s} lies in", "The continent of {s} is"), CONTINENTS),
    "young": PublicRelation(("A young {s} is called a", "The young of a {s} is a"), YOUNG),
    "opposite": PublicRelation(("The opposite of {s} is", "The word that means the opposite of {s} is"), OPPOSITES),
}
FACTS: tuple[tuple[str, str], ...] = tuple(
    (subject, relation) for relation, made in RELATIONS.items() for subject in made.values
)
