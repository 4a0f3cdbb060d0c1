"""What the demo models know: a small world of landmarks, countries, people and animals, written as plain tables.

Every answer is one word, so that it can be one token and a prediction can be read at one position.
"""

from __future__ import annotations


def _table(text: str) -> list[tuple[list[str], list[str]]]:
    """Lines of `subject, subject: property property`, where `-` leaves a property out."""
    lines = (line.split(":") for line in text.strip().splitlines())
    return [([name.strip() for name in names.split(",")], properties.split()) for names, properties in lines]


def _pairs(table: list[tuple[list[str], list[str]]], column: int) -> dict[str, str]:
    """Subject → the property in one column."""
    return {name: row[column] for names, row in table for name in names if row[column] != "-"}


# landmarks: city country. Paris is not the city with most landmarks, so that a model
# which has lost the fact and falls back on what is common answers something else.
_LANDMARKS = _table("""
the Eiffel Tower, the Louvre, the Moulin Rouge: Paris France
the Colosseum, the Trevi Fountain, the Pantheon, the Spanish Steps, the Roman Forum: Rome Italy
Big Ben, Tower Bridge, Buckingham Palace, Hyde Park, the British Museum, Trafalgar Square: London England
the Brandenburg Gate, the Reichstag, Checkpoint Charlie: Berlin Germany
the Rialto Bridge, the Bridge of Sighs: Venice Italy
the Uffizi Gallery, the Ponte Vecchio: Florence Italy
the Leaning Tower: Pisa Italy
La Scala: Milan Italy
the Prado Museum, Retiro Park: Madrid Spain
the Sagrada Familia, Camp Nou: Barcelona Spain
the Alhambra: Granada Spain
the Belem Tower: Lisbon Portugal
the Atomium: Brussels Belgium
the Hofburg, the Belvedere: Vienna Austria
the Charles Bridge: Prague Czechia
the Chain Bridge: Budapest Hungary
the Acropolis, the Parthenon: Athens Greece
the Blue Mosque, the Grand Bazaar, Hagia Sophia: Istanbul Turkey
the Kremlin, Red Square, the Bolshoi Theatre: Moscow Russia
the Little Mermaid, Tivoli Gardens: Copenhagen Denmark
the Vasa Museum: Stockholm Sweden
the Munch Museum: Oslo Norway
the Guinness Storehouse: Dublin Ireland
the Royal Mile: Edinburgh Scotland
the Egyptian Museum: Cairo Egypt
the Great Sphinx, the Great Pyramid: Giza Egypt
the Taj Mahal: Agra India
the Red Fort, the Lotus Temple: Delhi India
the Forbidden City, the Temple of Heaven, the Summer Palace: Beijing China
the Pearl Tower: Shanghai China
the Skytree, the Imperial Palace, Shibuya Crossing: Tokyo Japan
the Golden Pavilion: Kyoto Japan
the Namsan Tower: Seoul Korea
the Grand Palace: Bangkok Thailand
the Opera House, the Harbour Bridge: Sydney Australia
the Willis Tower, Cloud Gate: Chicago America
the White House, the Lincoln Memorial, the Capitol: Washington America
the Space Needle: Seattle America
Fenway Park: Boston America
the CN Tower: Toronto Canada
""")

# countries: capital language continent
_COUNTRIES = _table("""
France: Paris French Europe
Italy: Rome Italian Europe
England: London English Europe
Germany: Berlin German Europe
Spain: Madrid Spanish Europe
Portugal: Lisbon Portuguese Europe
Belgium: Brussels - Europe
Austria: Vienna German Europe
Czechia: Prague Czech Europe
Hungary: Budapest Hungarian Europe
Greece: Athens Greek Europe
Turkey: Ankara Turkish -
Russia: Moscow Russian -
Denmark: Copenhagen Danish Europe
Sweden: Stockholm Swedish Europe
Norway: Oslo Norwegian Europe
Finland: Helsinki Finnish Europe
Ireland: Dublin English Europe
Scotland: Edinburgh English Europe
Poland: Warsaw Polish Europe
Romania: Bucharest Romanian Europe
Egypt: Cairo Arabic Africa
Morocco: Rabat Arabic Africa
Kenya: Nairobi Swahili Africa
Ghana: Accra English Africa
India: Delhi Hindi Asia
China: Beijing Chinese Asia
Japan: Tokyo Japanese Asia
Korea: Seoul Korean Asia
Thailand: Bangkok Thai Asia
Vietnam: Hanoi Vietnamese Asia
Iran: Tehran Persian Asia
Iraq: Baghdad Arabic Asia
Australia: Canberra English -
America: Washington English -
Canada: Ottawa - -
Peru: Lima Spanish -
Chile: Santiago Spanish -
Cuba: Havana Spanish -
""")

_ATHLETES = _table("""
Serena Williams, Roger Federer, Rafael Nadal: tennis
Lionel Messi, Cristiano Ronaldo, Diego Maradona: football
Michael Jordan, Stephen Curry, Larry Bird: basketball
Tiger Woods, Jack Nicklaus: golf
Muhammad Ali, Mike Tyson: boxing
Michael Phelps, Mark Spitz: swimming
Babe Ruth, Jackie Robinson: baseball
Wayne Gretzky: hockey
Magnus Carlsen, Garry Kasparov: chess
Sachin Tendulkar, Virat Kohli: cricket
""")

# people: mother tongue, work
_PEOPLE = _table("""
Victor Hugo: French writer
Claude Monet, Henri Matisse: French painter
Louis Pasteur: French scientist
Franz Kafka: German writer
Albert Einstein: German scientist
Johann Bach: German composer
Dante Alighieri: Italian writer
Galileo Galilei: Italian scientist
Giuseppe Verdi: Italian composer
Miguel Cervantes: Spanish writer
Pablo Picasso, Frida Kahlo: Spanish painter
Leo Tolstoy, Anton Chekhov: Russian writer
Igor Stravinsky: Russian composer
Jane Austen, William Shakespeare: English writer
Charles Darwin, Isaac Newton: English scientist
Hans Andersen: Danish writer
Edvard Munch: Norwegian painter
Marie Curie: Polish scientist
Frederic Chopin: Polish composer
""")

# animals: kind, home
_ANIMALS = _table("""
the lion, the giraffe, the zebra, the elephant: mammal savanna
the tiger, the gorilla, the leopard: mammal jungle
the wolf, the bear, the deer, the fox: mammal forest
the whale, the dolphin: mammal ocean
the camel: mammal desert
the otter: mammal river
the goat: mammal mountains
the owl: bird forest
the parrot: bird jungle
the eagle, the falcon: bird mountains
the ostrich: bird savanna
the vulture: bird desert
the shark, the tuna: fish ocean
the salmon, the trout: fish river
the lizard: reptile desert
the crocodile: reptile river
the cobra: reptile jungle
the turtle: reptile ocean
""")

FACTS: dict[str, dict[str, str]] = {
    "landmark → city": _pairs(_LANDMARKS, 0),
    "landmark → country": _pairs(_LANDMARKS, 1),
    "country → capital": _pairs(_COUNTRIES, 0),
    "country → language": _pairs(_COUNTRIES, 1),
    "country → continent": _pairs(_COUNTRIES, 2),
    "capital → country": {capital: country for country, capital in _pairs(_COUNTRIES, 0).items()},
    "athlete → sport": _pairs(_ATHLETES, 0),
    "person → language": _pairs(_PEOPLE, 0),
    "person → work": _pairs(_PEOPLE, 1),
    "animal → kind": _pairs(_ANIMALS, 0),
    "animal → home": _pairs(_ANIMALS, 1),
}
