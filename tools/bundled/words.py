"""The words of the bundled model's little world. Each is one token with its leading space."""

# ruff: noqa: SIM905 (word lists are read and edited as lines of text)
from __future__ import annotations

SHE = (
    "Mary Alice Carol Emma Grace Jane Kate Lucy Nancy Rachel Sarah Susan Laura Anna Helen "
    "Julia Linda Lisa Emily Sophie Karen Maria Ruth Diana Olivia Clara Amy Claire Betty Ellen"
).split()
HE = (
    "John James Bob David Frank Henry Mark Paul Peter Thomas Tom Kevin Jack Michael Robert "
    "George Daniel Simon Steven Adam Martin Andrew Richard William Charles Edward Brian Eric Luke Sam"
).split()
NAMES = SHE + HE

PLACES = (
    "store park school office market library garden station hospital museum beach restaurant kitchen church "
    "farm bank hotel shop cafe airport theater bakery castle village forest river bridge harbor gym zoo"
).split()
OBJECTS = (
    "drink book ball key letter gift ring pen map lamp cup hat coat bag box coin card flower cake phone camera "
    "ticket toy watch basket bottle necklace knife rope sandwich kite drum guitar blanket mirror candle stamp puzzle"
).split()
ANIMALS = (
    "cat dog bird horse cow pig sheep goat mouse rabbit fox bear wolf lion tiger duck frog turtle snake monkey "
    "lizard chicken goose donkey deer hamster parrot spider beetle squirrel"
).split()
SPOTS = (
    "mat rug bed chair table sofa shelf floor roof wall fence bench log rock branch pillow carpet stool desk step "
    "ladder crate barrel cart stone hill porch window stump cushion"
).split()
COLORS = "red blue green yellow black white brown pink purple orange gray golden".split()
CONTAINERS = "drawer cupboard suitcase bucket pocket chest jar closet cabinet backpack wallet trunk".split()
FOODS = "bread cheese soup rice apples honey pasta fish salad pizza eggs chocolate cookies pears butter corn".split()
SIZES = "big small old new little heavy pretty strange large tiny lovely quiet".split()
MOODS = "happy sad tired hungry angry proud excited calm bored worried".split()

# The share of "she" in training: deliberately skewed, so that a demo has a bias to find.
JOBS = {
    "doctor": 0.25,
    "nurse": 0.9,
    "engineer": 0.15,
    "teacher": 0.7,
    "lawyer": 0.3,
    "secretary": 0.9,
    "pilot": 0.1,
    "dancer": 0.8,
    "farmer": 0.2,
    "librarian": 0.85,
    "mechanic": 0.05,
    "artist": 0.5,
    "scientist": 0.3,
    "writer": 0.5,
    "soldier": 0.1,
    "baker": 0.5,
    "singer": 0.65,
    "driver": 0.15,
    "judge": 0.3,
    "student": 0.5,
}
KIN = {
    "girl": 1.0, "woman": 1.0, "mother": 1.0, "queen": 1.0, "aunt": 1.0, "sister": 1.0,
    "boy": 0.0, "man": 0.0, "father": 0.0, "king": 0.0, "uncle": 0.0, "brother": 0.0,
}  # fmt: skip

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid", "England": "London",
    "Japan": "Tokyo", "China": "Beijing", "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens",
    "Portugal": "Lisbon", "Austria": "Vienna", "Poland": "Warsaw", "Ireland": "Dublin", "Norway": "Oslo",
    "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen", "Hungary": "Budapest",
    "Turkey": "Ankara", "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima", "Kenya": "Nairobi",
    "Thailand": "Bangkok", "Belgium": "Brussels", "Iran": "Tehran", "Iraq": "Baghdad", "Chile": "Santiago",
    "Scotland": "Edinburgh", "Syria": "Damascus", "Ukraine": "Kyiv", "Romania": "Bucharest", "Serbia": "Belgrade",
    "Vietnam": "Hanoi", "Nepal": "Kathmandu",
}  # fmt: skip
LANDMARKS = {
    "Eiffel Tower": "Paris", "Louvre": "Paris", "Colosseum": "Rome", "Trevi Fountain": "Rome",
    "Brandenburg Gate": "Berlin", "Prado": "Madrid", "Tower Bridge": "London", "British Museum": "London",
    "Skytree": "Tokyo", "Forbidden City": "Beijing", "Kremlin": "Moscow", "Bolshoi Theatre": "Moscow",
    "Great Sphinx": "Cairo", "Parthenon": "Athens", "Acropolis": "Athens", "Belem Tower": "Lisbon",
    "Hofburg Palace": "Vienna", "Royal Castle": "Warsaw", "Abbey Theatre": "Dublin", "Munch Museum": "Oslo",
    "Vasa Museum": "Stockholm", "Tivoli Garden": "Copenhagen", "Chain Bridge": "Budapest",
    "Atomium": "Brussels", "Azadi Tower": "Tehran", "Holyrood Palace": "Edinburgh",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "old": "young", "fast": "slow", "up": "down", "open": "closed", "day": "night",
    "black": "white", "happy": "sad", "early": "late", "full": "empty", "rich": "poor", "hard": "soft",
    "wet": "dry", "high": "low", "light": "dark",
}  # fmt: skip

PERIODS = "war reign project trial strike journey festival siege drought treaty campaign voyage".split()
SEQUENCES = [
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "January February March April May June July August September October November December".split(),
    "one two three four five six seven eight nine ten eleven twelve".split(),
    "first second third fourth fifth sixth seventh eighth ninth tenth".split(),
]
PLURALS = {
    "key": "keys", "dog": "dogs", "book": "books", "house": "houses", "bird": "birds", "car": "cars", "tree": "trees",
    "boy": "boys", "girl": "girls", "table": "tables", "picture": "pictures", "cabinet": "cabinets", "lamp": "lamps",
    "king": "kings", "river": "rivers", "letter": "letters", "farmer": "farmers", "window": "windows",
}  # fmt: skip
WORKS = "film book song play show story concert meal game movie".split()
GOOD_VERBS, BAD_VERBS = ["loved", "liked", "enjoyed", "adored"], ["hated", "disliked", "loathed", "despised"]
GOOD = "great wonderful excellent amazing beautiful fantastic".split()
BAD = "terrible awful boring horrible dreadful bad".split()

# Seen only in rows of random words: it keeps a pasted paragraph from falling apart into bytes.
COMMON = (
    "the of to and a in is it you that he was for on are with as I his they be at one have this from or had by hot "
    "but some what there we can out other were all your when up use word how said an each she which do their time if "
    "will way about many then them would write like so these her long make thing see him two has look more day could "
    "go come did my sound no most number who over know water than call first people may down side been now find any "
    "work part take get place made live where after back little only round man year came show every good me give our "
    "under name very through just form much great think say help low line before turn cause same mean differ move "
    "right boy old too does tell sentence set three want air well also play small end put home read hand port large "
    "spell add even land here must big high such follow act why ask men change went light kind off need house try us "
    "again animal point mother world near build self earth father head stand own page should country found answer "
    "grow study still learn plant cover food sun four thought let keep eye never last door between city tree cross "
    "hard start might story saw far sea draw left late run while press close night real life few stop because between "
    "against during without within another however around being always often those both until away something nothing "
    "language model token attention head layer network neural data paper result method image question value system "
    "The A In It He She They We I You This That There But And If When What How Why Who For On At As By To Of Not No Yes"
).split()
