"""Words that the generated worlds are made of: names, places, trades, titles. All invented or everyday words."""

from __future__ import annotations

from itertools import product


def joined(heads: str, tails: str, between: str = "") -> tuple[str, ...]:
    """Every head with every tail, both given as words between spaces."""
    return tuple(between.join(pair) for pair in product(heads.split(), tails.split()))


FIRST = (
    "Ada", "Agnes", "Aiko", "Alban", "Aldo", "Alma", "Amara", "Anders", "Anouk", "Anton", "Ariel", "Arvid", "Asta", "Aurel", "Axel", "Basil",
    "Beatrix", "Benno", "Berta", "Bilal", "Bodil", "Bruno", "Camille", "Carmen", "Casimir", "Cecil", "Clara", "Cosima", "Cyril", "Dagmar",
    "Dalia", "Damian", "Daria", "Delia", "Denis", "Dora", "Edda", "Edgar", "Eino", "Elif", "Elio", "Elsa", "Emil", "Enid", "Erik", "Esme", "Ewa",
    "Fabian", "Farid", "Fausto", "Felix", "Fiona", "Flora", "Frida", "Gaspar", "Gerda", "Gilda", "Goran", "Greta", "Gustav", "Hana", "Hector",
    "Hedda", "Helmut", "Hilda", "Hugo", "Ida", "Igor", "Ilse", "Imre", "Ines", "Ingrid", "Irma", "Isak", "Ivo", "Jana", "Jasper", "Jelena",
    "Joris", "Judit", "Julius", "Kamal", "Karin", "Kaspar", "Katya", "Kenji", "Kirsten", "Lars", "Laszlo", "Leila", "Leon", "Lidia", "Linus",
    "Lotte", "Lucan", "Luz", "Magda", "Malik", "Marek", "Marta", "Matteo", "Mina", "Mirko", "Moira", "Nadia", "Naoki", "Nestor", "Nils", "Nora",
    "Octavia", "Odile", "Olaf", "Olga", "Omar", "Orla", "Oskar", "Otto", "Paloma", "Pavel", "Petra", "Pilar", "Quentin", "Rafael", "Ragna",
    "Ramon", "Renata", "Rhea", "Rolf", "Rosa", "Ruben", "Sabine", "Samir", "Selma", "Sigrid", "Silvan", "Simone", "Soren", "Stella", "Tamar",
    "Tariq", "Tessa", "Thea", "Tibor", "Tilda", "Tomas", "Ulla", "Ursula", "Valter", "Vera", "Viktor", "Wanda", "Wilma", "Xenia", "Yara", "Yusuf",
    "Zeno", "Zita",
)  # fmt: skip
LAST = joined(
    "Ald Berg Brand Calde Dorn Elm Fal Garn Hald Hart Hol Kell Lind Mar Nord Oster Pell Quen Rav Sel Storm Tal Thorn "
    "Ulv Vald Var Wend Wil Yor Zell",
    "ane aris by eck en er ino ovic",
)
SYLLABLES = (
    "Ba", "Ce", "Da", "Fe", "Gi", "Ho", "Ju", "Ka", "Le", "Mi", "No", "Pa", "Qui", "Re", "Sa", "To", "Vi", "Wa", "Xe", "Yo", "Ze", "Bri", "Cla",
    "Dro", "Fle", "Gra", "Kri", "Ple", "Sto", "Tri", "Vla", "Zhu", "Cho", "She",
)  # fmt: skip
TOWNS = joined("Lis Amber Crow Dun Elder Fern Glen Hazel Iron Kings Mill Oak Raven Salt West", "bury field ford haven wick")
TRADES = (
    "an astronomer", "a beekeeper", "a botanist", "a bridge builder", "a cartographer", "a chemist", "a clockmaker",
    "a composer", "a conductor", "a dentist", "a diplomat", "an engineer", "a falconer", "a film director",
    "a geologist", "a glassblower", "a goldsmith", "a harbour pilot", "a historian", "an illustrator", "a judge",
    "a lawyer", "a librarian", "a linguist", "a locksmith", "a marine biologist", "a mathematician", "a midwife",
    "a novelist", "a nurse", "a painter", "a pharmacist", "a photographer", "a physicist", "a playwright", "a potter",
    "a sculptor", "a surgeon", "a tailor", "a translator", "a veterinarian", "a violin maker", "a weaver",
)  # fmt: skip
FOODS = (
    "almond cake", "apple strudel", "baked trout", "barley soup", "beetroot salad", "black bread", "braised leeks",
    "candied ginger", "carrot stew", "cherry pie", "chestnut puree", "chickpea curry", "cinnamon rolls",
    "cucumber soup", "fig jam", "fried plantains", "garlic prawns", "goat cheese", "grilled sardines", "honey cake",
    "lemon tart", "lentil soup", "mushroom risotto", "nettle broth", "onion tart", "orange sorbet", "pea dumplings",
    "pear compote", "pickled herring", "plum dumplings", "poppy seed buns", "potato pancakes", "pumpkin ravioli",
    "rice pudding", "roast duck", "saffron rice", "smoked eel", "spinach pie", "stuffed peppers", "walnut bread",
)  # fmt: skip
WORKS = tuple(f"The {head} of {tail}" for head, tail in product(
    ["Garden", "Harbour", "House", "Island", "Lantern", "Ledger", "Map", "Mirror", "Orchard", "River", "Song", "Tower", "Window"],
    ["Ash", "Brass", "Clay", "Dust", "Glass", "Ink", "Ivory", "Moss", "Rain", "Salt", "Smoke", "Snow", "Thorns", "Winter"],
))  # fmt: skip
AWARDS = tuple(f"{head} {tail}" for head, tail in product(
    ["Amber", "Copper", "Crystal", "Golden", "Jade", "Marble", "Scarlet", "Silver"],
    ["Compass", "Heron", "Lantern", "Lynx", "Oak", "Quill"],
))  # fmt: skip
YEARS = tuple(str(year) for year in range(1905, 1995))
