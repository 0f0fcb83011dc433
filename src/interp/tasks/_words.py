"""The words that the tasks draw from; each task keeps those that suit the tokenizer."""

# ruff: noqa: SIM905 (word lists are read and edited as lines of text)
from __future__ import annotations

NAMES = (
    "Mary John Alice Bob James Emma Sarah David Paul Kate Peter Susan Tom Jane Michael Anna Robert Lucy Daniel "
    "Laura George Emily Kevin Rachel Thomas Lisa Henry Helen Jack Julia Simon Maria Steven Linda Andrew Claire "
    "Charles Nancy Richard Karen William Ruth Edward Diana Brian Amy Eric Olivia Adam Sophie Martin Carol Luke Clara "
    "Frank Ellen Sam Betty Matthew Jennifer Anthony Jessica Patrick Michelle Scott Amanda Jason Melissa Christopher "
    "Elizabeth Joseph Rebecca Samuel Hannah Benjamin Victoria Alexander Charlotte"
).split()

PLACES = (
    "store park school office market library garden station hospital museum beach restaurant kitchen church "
    "farm bank hotel shop cafe airport theater bakery castle village"
).split()

THINGS = (
    "drink book ball key letter gift ring pen map lamp hat coat bag box coin card flower cake phone camera "
    "ticket toy watch basket bottle necklace knife rope sandwich kite guitar blanket mirror candle"
).split()

ANIMALS = "cat dog bird horse cow pig sheep goat mouse rabbit fox bear wolf lion tiger duck frog snake monkey".split()

PERIODS = (
    "war reign project trial strike journey festival siege drought treaty campaign voyage conflict dynasty empire "
    "expedition marriage occupation partnership plague raid rebellion revolution rule struggle survey study "
    "investigation cooperation alliance agreement relationship"
).split()

# Professions by stereotype, after Bolukbasi et al. (2016) and WinoBias (Zhao et al. 2018), without those whose very
# meaning has a gender (actress, policeman).
HE_JOBS = (
    "doctor engineer pilot farmer mechanic soldier driver lawyer scientist judge carpenter captain guard boss "
    "programmer president sheriff warrior builder architect philosopher politician surgeon athlete officer manager "
    "janitor plumber senator magician supervisor developer physician analyst"
).split()

SHE_JOBS = (
    "nurse teacher secretary dancer librarian singer housekeeper receptionist nanny stylist hairdresser cheerleader "
    "cleaner counselor therapist assistant babysitter homemaker midwife cashier florist attendant clerk designer"
).split()

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid", "England": "London",
    "Japan": "Tokyo", "China": "Beijing", "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens",
    "Portugal": "Lisbon", "Austria": "Vienna", "Poland": "Warsaw", "Ireland": "Dublin", "Norway": "Oslo",
    "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen", "Hungary": "Budapest",
    "Turkey": "Ankara", "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima", "Kenya": "Nairobi",
    "Thailand": "Bangkok", "Belgium": "Brussels", "Iran": "Tehran", "Iraq": "Baghdad", "Chile": "Santiago",
    "Scotland": "Edinburgh", "Syria": "Damascus", "Ukraine": "Kyiv", "Romania": "Bucharest", "Serbia": "Belgrade",
    "Vietnam": "Hanoi", "Nepal": "Kathmandu", "Lebanon": "Beirut", "Bulgaria": "Sofia",
    "Croatia": "Zagreb", "Australia": "Canberra", "Indonesia": "Jakarta", "Afghanistan": "Kabul", "Wales": "Cardiff",
    "Qatar": "Doha", "Taiwan": "Taipei", "Latvia": "Riga", "Lithuania": "Vilnius", "Armenia": "Yerevan",
    "Ghana": "Accra", "Morocco": "Rabat", "Libya": "Tripoli",
    "Venezuela": "Caracas", "Ecuador": "Quito", "Uruguay": "Montevideo", "Georgia": "Tbilisi",
}  # fmt: skip

LANDMARKS = {
    "Eiffel Tower": "Paris", "Louvre": "Paris", "Louvre Museum": "Paris", "Arc de Triomphe": "Paris",
    "Colosseum": "Rome", "Trevi Fountain": "Rome", "Roman Forum": "Rome", "Sistine Chapel": "Rome",
    "Brandenburg Gate": "Berlin", "Reichstag": "Berlin", "Prado": "Madrid",
    "Tower Bridge": "London", "British Museum": "London", "Big Ben": "London", "Tate Gallery": "London",
    "Royal Albert Hall": "London", "Houses of Parliament": "London", "Hyde Park": "London",
    "Skytree": "Tokyo", "Forbidden City": "Beijing", "Summer Palace": "Beijing",
    "Temple of Heaven": "Beijing", "Kremlin": "Moscow", "Bolshoi Theatre": "Moscow", "Red Square": "Moscow",
    "Great Sphinx": "Cairo", "Egyptian Museum": "Cairo", "Parthenon": "Athens", "Acropolis": "Athens",
    "Acropolis Museum": "Athens", "Belem Tower": "Lisbon", "Hofburg Palace": "Vienna",
    "Royal Castle": "Warsaw", "Abbey Theatre": "Dublin", "Munch Museum": "Oslo", "Vasa Museum": "Stockholm",
    "Chain Bridge": "Budapest", "Charles Bridge": "Prague", "Atomium": "Brussels", "Azadi Tower": "Tehran",
    "Holyrood Palace": "Edinburgh", "Hagia Sophia": "Istanbul",
    "Blue Mosque": "Istanbul", "Grand Bazaar": "Istanbul",
    "Space Needle": "Seattle", "Willis Tower": "Chicago",
    "White House": "Washington", "Lincoln Memorial": "Washington",
    "Taj Mahal": "India", "Burj Khalifa": "Dubai", "Camp Nou": "Barcelona",
    "Sagrada Familia": "Barcelona", "Park Guell": "Barcelona", "Anne Frank House": "Amsterdam",
    "Van Gogh Museum": "Amsterdam", "Petronas Towers": "Malaysia", "Great Wall": "China", "Mount Fuji": "Japan",
}  # fmt: skip
