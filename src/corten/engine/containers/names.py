"""Names of containers: what is allowed, and names for those that were given none."""

from __future__ import annotations

import random
import re
from collections.abc import Container as Holding

from corten.errors import InvalidArgument, clip

_VALID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_ADJECTIVES = (
    "able agile amber ample apt ardent balmy bold brave breezy bright brisk calm candid careful cheerful civil clear "
    "clever cosy crisp curious dapper daring deft eager earnest easy elegant fair fearless festive fleet fluent fond "
    "frank fresh gentle glad graceful grand happy hardy hearty helpful honest humble jolly jovial keen kind lively "
    "loyal lucid lucky mellow merry mild modest neat nimble noble orderly patient placid playful plucky polite proud "
    "prudent quick quiet radiant ready robust serene sharp sincere smart smooth snug solid spirited spry steady "
    "sturdy sunny swift tender thrifty tidy tranquil trusty upbeat valiant vivid warm watchful wise witty zealous"
).split()
_SURNAMES = (
    "abel agnesi ampere archimedes banach bernoulli bohr boole born bose brahe cantor carson cauchy cerf chandra "
    "church codd copernicus curie dalton darwin descartes dijkstra dirac einstein erdos euclid euler faraday fermat "
    "fermi feynman fibonacci fourier franklin galileo galois gauss germain godel goodall hamilton hawking heisenberg "
    "hertz hilbert hodgkin hopper hubble huygens hypatia jacobi joule kelvin kepler khayyam knuth lamarr laplace "
    "leibniz liskov lorentz lovelace maxwell mendel meitner mirzakhani napier nash newton nobel noether ohm pascal "
    "pasteur pauli planck poincare ptolemy raman riemann ritchie rubin sagan salk shannon tesla thompson turing "
    "vaughan volta wiles wing wozniak yalow yonath"
).split()


def check(name: str) -> str:
    """`name` without a leading slash. Raises InvalidArgument in Docker's words."""
    plain = name.removeprefix("/")
    if not _VALID.fullmatch(plain):
        raise InvalidArgument(f"Invalid container name ({clip(name, 260)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return plain


def invent(taken: Holding[str]) -> str:
    """An adjective and a scientist, with a number once the plain pair is taken."""
    for attempt in range(100):
        name = f"{random.choice(_ADJECTIVES)}_{random.choice(_SURNAMES)}"
        if attempt > 4:
            name += str(random.randrange(10 ** min(attempt - 3, 6)))
        if name not in taken:
            return name
    raise RuntimeError("no free name was found in a hundred tries")
